"""``python -m tests.browser.screenshots --into FOLDER``: the pictures in the documents.

With ``--all FOLDER`` also each view and each state of the dashboard, at three widths, light and
dark. All are of the demonstration's data at one instant, so that they change only with the pages.
"""

import argparse
import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from app.alerts.budgets import set_budget
from app.alerts.webhooks import EndpointBody, Rules, create_endpoint
from app.auth.api_keys import new_key, store_key
from app.auth.claims import ANALYTICS_ADMIN, ANALYTICS_READ_ANY
from app.auth.share_links import new_link, store_link
from app.cli.demo import ORGANIZATION, load_demo
from app.intake.organization_settings import OrganizationSettings, Price, store_settings
from jobs.findings.task import judge_findings
from tests.browser.chromium import started
from tests.browser.person import PHONE, Person
from tests.browser.serving import Site
from tests.support.databases import migrate
from tests.support.pages import DASHBOARD
from tests.support.settings import make_settings

AT = datetime(2026, 11, 27, 16, 42, 9, tzinfo=UTC)
SCREEN = (1200, 1105)
PICTURES = {
    "dashboard-light.png": ("light", SCREEN, 1),
    "dashboard-dark.png": ("dark", SCREEN, 1),
    "dashboard-phone.png": ("light", PHONE, 2),
}
WIDTHS = (1440, 768, 360)
MOST_HEIGHT = 12_000
SETTINGS = ("budgets", "webhooks", "links", "keys", "audit")
# Views by their address, or by the link on the overview that leads to them.
VIEWS = {
    "overview": DASHBOARD,
    "overview-7d": f"{DASHBOARD}?range=7d",
    "overview-13w": f"{DASHBOARD}?range=13w",
    "overview-12m": f"{DASHBOARD}?range=12m",
    "overview-kolkata": f"{DASHBOARD}?zone=Asia/Kolkata&vs=year",
    "overview-utc": f"{DASHBOARD}?zone=UTC",
    "day": ".bars .spike, .bars a:last-of-type",
    "agent": ".who a",
    "finding": "#attention li a",
    "organizations": f"{DASHBOARD}/organizations",
    **{f"settings-{name}": f"{DASHBOARD}/settings/{name}" for name in SETTINGS},
    "settings": f"{DASHBOARD}/settings",
    "docs": "/docs",
    "error": f"{DASHBOARD}?zone=Mars",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--all", type=Path, metavar="FOLDER")
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder, started("--font-render-hinting=none") as browser:
        url = f"sqlite:///{folder}/analytics.db"
        migrate(url)
        with Site(url).serving() as site:
            prepare(site, url)
            person = Person(browser, site)
            if arguments.all:
                arguments.all.mkdir(parents=True, exist_ok=True)
                take_all(person, arguments.all)
            else:
                person.sign_in(organization=ORGANIZATION)
            arguments.into.mkdir(parents=True, exist_ok=True)
            person.open(DASHBOARD)
            for name, (scheme, size, scale) in PICTURES.items():
                person.prefer(scheme, motion="reduce")  # colours change at once
                person.screen(*size, scale)
                (arguments.into / name).write_bytes(picture(person))


def prepare(site: Site, url: str) -> None:
    """The demonstration, counted and judged, and an organization with one token."""
    site.now = AT
    load_demo(site.database, AT)
    site.issue(timedelta(minutes=30), tenant="org-new", agent="my-agent")
    site.roll_up()
    administer(site)
    settings = make_settings(url)
    while judge_findings(site.database, settings).organizations:
        pass
    site.now += timedelta(seconds=4)


def administer(site: Site) -> None:
    """Something on each page of the settings."""
    database, by = site.database, "ada"
    price = OrganizationSettings(price=Price(2.5, "EUR"), token_lifetime=3600)
    store_settings(database, ORGANIZATION, price, AT, by=by)
    for agent, period, tokens in ((None, "month", 60_000), (None, "day", 1_000)):
        set_budget(database, ORGANIZATION, agent, period, tokens, now=AT, by=by)
    body = EndpointBody("https://hooks.example.com/findings", digest="weekly")
    create_endpoint(database, ORGANIZATION, body, AT, rules=Rules(), by=by)
    until = AT + timedelta(days=30)
    store_link(database, new_link(ORGANIZATION, ["summary", "tokens"], 28, until, AT, by=by))
    store_key(database, new_key(ORGANIZATION, ["analytics:read"], AT, note="Grafana"), by=by)


def take_all(person: Person, into: Path) -> None:
    """Each view and each state, at each width, light and dark."""
    person.open("/signin")
    take(person, into, "signin")
    for organization, name in (("org-nobody", "state-empty"), ("org-new", "state-first-day")):
        person.sign_in(organization=organization)
        take(person, into, name)
        sign_out(person)
    person.sign_in(organization=ORGANIZATION)
    person.open(f"{DASHBOARD}?organizationId=org-new")
    take(person, into, "state-no-permission")
    person.open(DASHBOARD)
    sign_out(person)
    person.sign_in(organization=ORGANIZATION, scope=f"{ANALYTICS_READ_ANY} {ANALYTICS_ADMIN}")
    for name, place in VIEWS.items():
        go(person, place)
        take(person, into, name)
    person.open(f"{DASHBOARD}?organizationId=org-new")
    take(person, into, "operator")
    person.site.now += timedelta(minutes=14)
    person.open(DASHBOARD)
    take(person, into, "state-stale")
    person.site.now -= timedelta(minutes=14)


def go(person: Person, place: str) -> None:
    """Open an address, or what a link on the overview leads to."""
    if place.startswith("/"):
        person.open(place)
        return
    person.open(DASHBOARD)
    person.open(str(person.evaluate(f"document.querySelector({place!r}).getAttribute('href')")))


def sign_out(person: Person) -> None:
    person.screen(*SCREEN)
    person.follow(".bar form button")


def take(person: Person, into: Path, name: str) -> None:
    """The whole of a page, in each appearance."""
    for width in WIDTHS:
        for scheme in ("light", "dark"):
            person.prefer(scheme, motion="reduce")
            person.screen(width, 900)
            height = person.evaluate("document.documentElement.scrollHeight")
            person.screen(width, min(int(height), MOST_HEIGHT))
            (into / f"{name}-{width}-{scheme}.png").write_bytes(picture(person))


def picture(person: Person) -> bytes:
    """What is on the screen, as PNG."""
    answer = person.cdp("Page.captureScreenshot", format="png", optimizeForSpeed=False)
    return base64.b64decode(answer["data"])


if __name__ == "__main__":
    main()
