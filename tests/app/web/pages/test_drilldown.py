"""The pages of a day, an agent and a finding: numbers, visitors, forms and cost."""

import html
import re
from datetime import date, timedelta

import pytest

from app.detection import Kind, Part, Share
from app.intake.agent_names import set_names
from tests.support.findings import stored
from tests.support.pages import DASHBOARD, SIGNIN, Browser, place
from tests.support.settings import NOW, TENANT
from tests.support.statements import statements
from tests.support.tokens import bearer

HOSTILE = "<img src=x onerror=alert(1)>"
MOST_BYTES, MOST_STATEMENTS = 60_000, 6
TODAY = NOW.date()
DAY, AGENT = f"{DASHBOARD}/days/{TODAY}", f"{DASHBOARD}/agent?agentId=agent-1"
FINDING = f"{DASHBOARD}/findings/{'0' * 32}"


@pytest.fixture
def browser(client):
    browser = Browser(client)
    browser.sign_in(scope="analytics:admin agents:write")
    return browser


@pytest.fixture
def busy(issue, roll_up):
    """Ten weeks: each day agent-1 at 9, and another agent at 10."""
    for ago in range(70):
        day = NOW - timedelta(days=ago)
        issue(day.replace(hour=9), times=9, agent="agent-1")
        issue(day.replace(hour=10), agent=f"agent-{ago % 5 + 2}")
    roll_up()


def text_of(answer) -> str:
    """What is to be read on the page, with every run of white space as one space."""
    assert answer.status_code == 200, answer.text
    body = re.sub(r"<(script|select)\b.*?</\1>", "", answer.text, flags=re.DOTALL)
    plain = html.unescape(re.sub(r"<[^>]+>", " ", body)).replace("\N{NO-BREAK SPACE}", " ")
    return " ".join(plain.split())


def bars(answer):
    return [
        html.unescape(text).split("\n")
        for text in re.findall(r"<title>([^<]*)</title><use", answer.text, re.DOTALL)
    ]


@pytest.mark.parametrize(
    ("zone", "day"),
    [
        ("UTC", "2026-04-10"),
        ("Europe/Berlin", "2026-03-29"),
        ("America/New_York", "2026-03-08"),
        ("Asia/Kolkata", "2026-04-10"),
    ],
)
def test_a_days_numbers_are_those_of_the_api(client, browser, busy, zone, day):
    """Also where the clock is changed, and where an hour begins at half past."""
    page = browser.get(f"{DASHBOARD}/days/{day}?zone={zone}")
    query = f"from={day}&to={day}&zone={zone}"
    hours = client.get(f"/api/v1/analytics/tokens/hourly?{query}", headers=bearer()).json["data"]
    shown = bars(page)
    assert len(shown) == len(hours)
    for bar, hour in zip(shown, hours, strict=True):
        assert bar[0].startswith(hour["hour"][11:16])
        assert int(bar[1].split(" ")[0].replace(",", "")) == hour["count"]
    agents = client.get(f"/api/v1/analytics/agents?{query}", headers=bearer()).json["data"]
    text = text_of(page)
    assert f"{len(agents)} with tokens" in text
    for agent in agents:
        assert re.search(rf"{agent['agentId']}.*? {agent['tokenCount']} ", text)


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_an_agents_numbers_are_those_of_the_api(client, browser, busy, zone):
    page = browser.get(f"{AGENT}&range=28d&zone={zone}")
    last = date(2026, 4, 15)
    query = f"from={last - timedelta(days=27)}&to={last}&zone={zone}&agentId=agent-1"
    days = client.get(f"/api/v1/analytics/tokens?{query}", headers=bearer()).json["data"]
    shown = bars(page)[: len(days)]
    assert [int(bar[1].split(" ")[0]) for bar in shown] == [day["count"] for day in days]
    assert f"Tokens {sum(day['count'] for day in days)} " in text_of(page)


def test_a_day_says_what_is_usual(browser, busy):
    text = text_of(browser.get(f"{DASHBOARD}/days/2026-04-14"))
    assert "10 tokens, 1.0 times the usual 10" in text
    assert "usual on Tuesday" in text


def test_an_agents_facts(browser, busy):
    text = text_of(browser.get(AGENT))
    for fact in (
        "Rank this month 1 of 6 was 1 of 6",
        "First seen 5 Feb 2 months ago",
        "Last seen 15 Apr today, 70 active days",
        "A usual day 9 one every 2 h",
        "It keeps its tokens.",
    ):
        assert fact in text
    assert "active on 4 of 4 days" in browser.get(AGENT).text


def test_what_an_agent_could_save(browser, client, issue, roll_up):
    """A usual day of 960 tokens, of which 24 are needed, with the organization's price."""
    for ago in range(1, 9):
        issue((NOW - timedelta(days=ago)).replace(hour=3), times=960, agent="agent-1")
    roll_up()
    price = {"price": {"perThousand": 2.5, "currency": "EUR"}}
    admin = bearer(scope="analytics:admin")
    assert client.put("/api/v1/settings", json=price, headers=admin).status_code == 200
    text = text_of(browser.get(AGENT))
    assert "needs 24 a day . This one asks for 960, 40 times as many." in text
    assert "About 28,080 tokens a month are avoidable, which cost 70.20 EUR" in text


@pytest.mark.parametrize(
    "path", [DAY, f"{DASHBOARD}/days/2019-01-01", f"{DASHBOARD}/days/2999-01-01"]
)
def test_every_day_has_a_page(browser, busy, path):
    """A day that is not kept, not counted or not begun says so."""
    text = text_of(browser.get(path))
    if "2999" in path:
        assert "This day has not begun." in text
    if "2019" in path:
        assert "cannot be shown" in text or "No agent was issued a token" in text


@pytest.mark.parametrize(
    "path",
    [
        f"{DASHBOARD}/days/2026-02-30",
        f"{DASHBOARD}/days/today",
        f"{DASHBOARD}/days/9999-12-31",
        f"{DASHBOARD}/agent",
        f"{DASHBOARD}/agent?agentId=nobody",
        f"{DASHBOARD}/agent?agentId=%00",
        f"{DASHBOARD}/findings/{'1' * 32}",
        f"{DASHBOARD}/findings/%00",
    ],
)
def test_unknown_things_are_not_found(browser, busy, path):
    answer = browser.get(path)
    assert answer.status_code == 404
    assert "<h1>" in answer.text


def test_the_pages_cost_few_statements_and_bytes(browser, database, issue, roll_up):
    for ago in range(0, 120, 4):
        for number in range(55):
            issue(NOW - timedelta(days=ago), agent=f"00000000-0000-4000-8000-{number:012}")
    roll_up()
    stored(database, {"agent": "agent-1", "part": Part.AGENT, "kind": Kind.RETRY_LOOP})
    agent = f"{DASHBOARD}/agent?agentId=00000000-0000-4000-8000-000000000001&range=13w"
    for path in (DAY, agent, f"{FINDING}?range=13w"):
        with statements(browser.app.extensions["analytics"].database) as sent:
            page = browser.get(path)
        assert page.status_code == 200
        reads = [one for one in sent if one.startswith(("SELECT", "WITH"))]
        assert len(reads) <= MOST_STATEMENTS, path
        assert len(page.data) < MOST_BYTES, path


def test_nobody_sees_another_organization(browser, database, issue, roll_up):
    issue(NOW, times=3, tenant="org-b", agent="their-agent")
    roll_up()
    stored(database, {}, tenant="org-b")
    assert "their-agent" not in browser.get(DAY).text
    assert browser.get(f"{DASHBOARD}/agent?agentId=their-agent").status_code == 404
    assert browser.get(FINDING).status_code == 404


@pytest.mark.parametrize("path", [DAY, AGENT, FINDING])
def test_a_page_survives_sign_in(client, path):
    browser = Browser(client)
    assert place(browser.get(f"{path}{'&' if '?' in path else '?'}range=7d")) == SIGNIN
    assert place(browser.sign_in()).split("?")[0] == path.split("?")[0]


def test_names_are_text(browser, database, busy):
    set_names(database, TENANT, {"agent-1": HOSTILE}, NOW, by="tester")
    stored(
        database,
        {"agents": (Share("agent-1", 3900, 780, 0.83),), "agent": "agent-1", "part": Part.AGENT},
    )
    for path in (DAY, AGENT, FINDING):
        page = browser.get(path)
        assert HOSTILE not in page.text
        assert html.escape(HOSTILE) in page.text, path


def test_a_name_and_a_lifetime_are_set(browser, busy):
    path = AGENT
    saved = browser.send(path, path, name="billing-sync", lifetime="600")
    assert place(saved) == f"{AGENT}&saved=1"
    text = text_of(browser.get(place(saved)))
    assert "billing-sync agent-1" in text
    assert "Saved." in text
    assert 'value="600"' in browser.get(path).text
    assert place(browser.send(path, path, name="", lifetime="")) == f"{AGENT}&saved=1"
    assert "billing-sync" not in browser.get(path).text


@pytest.mark.parametrize(
    ("name", "lifetime"), [("n" * 256, ""), ("x", "0"), ("x", "1e3"), ("x", "-1"), ("a\x07b", "")]
)
def test_an_invalid_form_keeps_what_was_typed(browser, busy, name, lifetime):
    answer = browser.send(AGENT, AGENT, name=name, lifetime=lifetime)
    assert answer.status_code == 400
    assert 'role="alert"' in answer.text
    assert f'value="{html.escape(name)}"' in answer.text


def test_a_finding_is_marked_with_a_note(browser, database, busy):
    stored(database, {})
    assert (
        place(browser.send(FINDING, FINDING, acknowledged="1", note="a\r\ntest"))
        == f"{FINDING}?saved=1"
    )
    page = browser.get(FINDING)
    assert "Marked by client-1" in text_of(page) or "Marked by" in text_of(page)
    assert "marked as expected" in text_of(page)
    assert "a\ntest</textarea>" in page.text
    browser.send(FINDING, FINDING, acknowledged="0", note="")
    assert "Is this expected?" in text_of(browser.get(FINDING))
    answer = browser.send(FINDING, FINDING, acknowledged="1", note="n" * 1001)
    assert answer.status_code == 400
    assert "n" * 1001 in answer.text


def test_changes_need_their_scope_and_the_own_organization(client, database, busy):
    stored(database, {})
    reader = Browser(client)
    reader.sign_in()
    for path in (AGENT, FINDING):
        assert reader.send(DASHBOARD, path, name="x", note="x").status_code == 403
        assert '<form method="post" ' not in reader.get(path).text.split('id="cards"')[1]
    operator = reader.another()
    operator.sign_in(
        organization_id="org-b", scope="agents:write analytics:admin analytics:read:any"
    )
    for path in (f"{AGENT}&organizationId={TENANT}", f"{FINDING}?organizationId={TENANT}"):
        assert operator.get(path).status_code == 200
        assert operator.send(DASHBOARD, path, name="x", note="x").status_code == 403


def test_a_form_of_another_site_is_refused(browser, busy):
    assert browser.post(AGENT, name="x", lifetime="").status_code == 400


def test_the_ends_of_the_calendar_have_pages(browser, busy):
    for day in ("1970-01-01", "9999-12-30"):
        for zone in ("UTC", "America/Los_Angeles", "Pacific/Kiritimati"):
            assert browser.get(f"{DASHBOARD}/days/{day}?zone={zone}").status_code == 200
    for dates in ("from=9999-12-01&to=9999-12-31", "from=1970-01-01&to=1970-01-03"):
        assert browser.get(f"{AGENT}&{dates}&vs=year&zone=America/Los_Angeles").status_code == 200


def test_a_finding_without_agents_is_a_page(browser, database, busy):
    stored(database, {"agents": (), "agent": "agent-1", "part": Part.AGENT})
    assert browser.get(FINDING).status_code == 200
