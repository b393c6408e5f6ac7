"""``python -m tests.browser.screenshots --into FOLDER``: the pictures in the documents.

Of the demonstration's data on a day of 2026 that has a spike and a silent day behind it, so that
they change only with the page.
"""

import argparse
import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from app.cli.demo import ORGANIZATION, load_demo
from tests.browser.chromium import started
from tests.browser.person import PHONE, Person
from tests.browser.serving import Site
from tests.support.databases import migrate

AT = datetime(2026, 8, 27, 14, 20, 9, tzinfo=UTC)
SCREEN = (1200, 1105)
PICTURES = {
    "dashboard-light.png": ("light", SCREEN, 1),
    "dashboard-dark.png": ("dark", SCREEN, 1),
    "dashboard-phone.png": ("light", PHONE, 2),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, required=True, metavar="FOLDER")
    into = parser.parse_args().into
    into.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder, started("--font-render-hinting=none") as browser:
        url = f"sqlite:///{folder}/analytics.db"
        migrate(url)
        with Site(url).serving() as site:
            site.now = AT
            load_demo(site.database, AT)
            site.roll_up()
            site.now += timedelta(seconds=4)
            person = Person(browser, site)
            person.sign_in(organization=ORGANIZATION)
            for name, (scheme, size, scale) in PICTURES.items():
                person.prefer(scheme, motion="reduce")  # colours change at once
                person.screen(*size, scale)
                (into / name).write_bytes(picture(person))


def picture(person: Person) -> bytes:
    """What is on the screen, as PNG."""
    answer = person.cdp("Page.captureScreenshot", format="png", optimizeForSpeed=False)
    return base64.b64decode(answer["data"])


if __name__ == "__main__":
    main()
