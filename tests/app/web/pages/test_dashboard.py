"""The overview: its numbers beside the API's, its cost, and numbers and names that are unusual."""

import html
import random
import re
from datetime import date, timedelta

import pytest
import sqlalchemy as sa

from app.detection import Kind, Part, Severity, Share
from app.intake.agent_names import set_names
from app.storage.tables import hourly_issuance, rollup_state
from tests.support.findings import START, stored
from tests.support.pages import DASHBOARD, SIGNIN, Browser, place
from tests.support.settings import NOW, TENANT
from tests.support.statements import statements
from tests.support.summaries import fill
from tests.support.tokens import bearer

HOSTILE = "<img src=x onerror=alert(1)>"
MOST_BYTES, MOST_STATEMENTS = 60_000, 6
DAY = timedelta(days=1)
RANGES = ["range=7d", "", "range=13w", "range=12m", "from=2026-01-07&to=2026-03-31"]
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"]


@pytest.fixture
def browser(client):
    browser = Browser(client)
    browser.sign_in()
    return browser


@pytest.fixture
def counted_at(database):
    """Have the last run end some time before now."""

    def set_back(age: timedelta) -> None:
        ended = sa.update(rollup_state).values(last_finished=NOW - age)
        database.write(lambda connection: connection.execute(ended))

    return set_back


def text_of(answer) -> str:
    """What is to be read on the page, with every run of white space as one space."""
    assert answer.status_code == 200, answer.text
    body = re.sub(r"<(script|select|title)\b.*?</\1>", "", answer.text, flags=re.DOTALL)
    plain = html.unescape(re.sub(r"<[^>]+>", " ", body)).replace("\N{NO-BREAK SPACE}", " ")
    return " ".join(plain.split())


def tile(answer, name) -> str:
    """The text of a tile."""
    assert answer.status_code == 200, answer.text
    found = re.search(rf"<dt>{name}</dt>(.*?)</div>", answer.text, re.DOTALL)
    assert found, name
    return text_of_html(found[1])


def text_of_html(markup) -> str:
    plain = html.unescape(re.sub(r"<[^>]+>", " ", markup)).replace("\N{NO-BREAK SPACE}", " ")
    return " ".join(plain.split())


def bars(answer) -> list[tuple[str, ...]]:
    """The lines of each bar of the days' chart."""
    chart = re.search(r'data-card="days".*?</section>', answer.text, re.DOTALL)
    return [
        tuple(html.unescape(text).split("\n"))
        for text in re.findall(r"<title>(.*?)</title>", chart[0], re.DOTALL)
    ]


def count(text) -> int:
    return int(text.split(" ")[0].replace(",", ""))


def some_days(days=140, agents=3, seed=5):
    """Tokens of some agents at a few hours of each day, more of them from day to day."""
    dice = random.Random(seed)
    return [
        (
            (NOW - ago * DAY).replace(hour=hour, minute=0),
            f"agent-{agent}",
            dice.randrange(1, 9) * (days - ago) + agent,
        )
        for ago in range(days)
        for agent, hour in enumerate(dice.sample(range(NOW.hour + 1), agents))
    ]


@pytest.fixture
def busy(database):
    fill(database, some_days())


def answer(client, path):
    found = client.get(f"/api/v1/analytics/{path}", headers=bearer())
    assert found.status_code == 200, found.text
    return found.json


def test_numbers_are_those_of_the_api(client, browser, busy):
    """For ranges and zones at random, over changes of clocks too."""
    dice = random.Random(11)
    for _ in range(10):
        last = NOW.date() - dice.randrange(60) * DAY
        first = last - dice.choice((0, 6, 13, 27)) * DAY
        days = f"from={first}&to={last}&zone={dice.choice(ZONES)}"
        page = browser.get(f"{DASHBOARD}?{days}")
        points = answer(client, f"tokens?{days}")["data"]
        found = answer(client, f"summary?{days}")
        assert [count(lines[1]) for lines in bars(page)] == [each["count"] for each in points]
        assert count(tile(page, "Tokens")) == sum(each["count"] for each in points)
        if len(points) % 7 == 0:
            change = found["change"]
            assert f"{abs(100 * change):,.1f} % vs" in tile(page, "Tokens")
            assert f"vs {found['previous']['total']:,}" in tile(page, "Tokens")


def test_a_long_range_is_shown_by_week(client, browser, busy):
    page = browser.get(f"{DASHBOARD}?range=12m")
    points = answer(client, "tokens?from=2025-04-17&to=2026-04-15")["data"]
    counts = [each["count"] for each in points]
    weeks = [sum(counts[begin : begin + 7]) for begin in range(0, 364, 7)]
    assert [count(lines[1]) for lines in bars(page)] == weeks
    assert "9 Apr – 15 Apr" in page.text  # noqa: RUF001 - as on the page
    assert "from=2026-04-09&amp;to=2026-04-15" in page.text


def test_the_calendar_has_a_year(client, browser, busy):
    page = browser.get(DASHBOARD).text
    first, counts = re.search(r'data-first="(.*?)" data-counts="(.*?)"', page).groups()
    assert date.fromisoformat(first).isoweekday() == 1
    days = answer(client, f"tokens?from={date.fromisoformat(first) + 3 * DAY}&to=2026-04-15")[
        "data"
    ]
    assert len(days) > 360
    shown = counts.split(" ")[3:]
    began = next(number for number, each in enumerate(days) if each["count"])
    assert shown[:began] == [""] * began
    assert [int(count, 36) for count in shown[began:]] == [each["count"] for each in days[began:]]
    march = "/dashboard?range=dates&amp;from=2026-03-01&amp;to=2026-03-31"
    assert march in page or march.replace("range=dates&amp;", "") in page


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("vs=none", "not compared"),
        ("vs=year", "the first tokens are of Fri 27 Nov 2025"),
        ("range=13w", "the first tokens are of Fri 27 Nov 2025"),
    ],
)
def test_what_cannot_be_compared_says_why(browser, database, query, text):
    fill(database, some_days(140))
    assert text.replace("Fri 27", "Thu 27") in tile(browser.get(f"{DASHBOARD}?{query}"), "Tokens")


def test_days_that_are_not_counted_are_no_zeros(browser, busy, counted_at):
    counted_at(2 * DAY)
    page = browser.get(f"{DASHBOARD}?range=7d")
    assert [lines[1] for lines in bars(page)][-2:] == ["not counted yet"] * 2
    assert bars(page)[-3][1].endswith(", so far")
    assert tile(page, "Today so far") == "– not counted yet"  # noqa: RUF001 - as on the page
    counted_at(400 * DAY)
    assert "no whole day is counted yet" in tile(browser.get(DASHBOARD), "Tokens")


def test_today_is_beside_the_usual_of_its_hour(browser, database):
    """Of the same weekday, up to the last whole hour."""
    hours = [
        ((NOW - ago * DAY).replace(hour=hour, minute=0), "agent-1", 10)
        for ago in range(90)
        for hour in range(NOW.hour + 1 if ago == 0 else 24)
    ]
    fill(database, [*hours, (NOW.replace(hour=3, minute=0), "agent-2", 12)])
    assert tile(browser.get(DASHBOARD), "Today so far") == (
        "142 of ~240 +10.0 %: 132 vs 120 by 12:00"
    )
    assert tile(browser.get(DASHBOARD), "A usual weekday") == "240 240 at weekends"
    past = browser.get(f"{DASHBOARD}?from=2026-03-01&to=2026-03-31")
    assert "Today so far" not in past.text
    assert tile(past, "Highest day") == "240 Sun 1 Mar 2026"


def test_unusual_days_are_marked_by_more_than_colour(browser, database):
    """A spike by its size, a silent day by a hatch and a 0; both in words in the table."""
    days = [((NOW - ago * DAY).replace(hour=9), "agent-1", 100) for ago in range(90) if ago != 5]
    fill(database, [*days, (START + timedelta(hours=10), "agent-1", 260)])
    stored(database, {"resolved_at": NOW, "resolution": "ended"})
    page = browser.get(DASHBOARD)
    assert '<a class="spike" href="/dashboard/days/2026-04-14">' in page.text
    assert ">3.6×</text>" in page.text  # noqa: RUF001 - as on the page
    assert page.text.count('class="silent"') == 1
    assert 'fill="url(#hatch-d)"' in page.text
    assert '<th>Tue 14 Apr<td>360<td>100<td class="t">spike, usual 100' in page.text
    assert '<th>Fri 10 Apr<td>0<td>100<td class="t">silent, usual 100' in page.text
    assert '<path class="cx"' in page.text
    weeks = browser.get(f"{DASHBOARD}?range=12m")
    assert "a spike on Tue 14 Apr" in weeks.text


def test_findings_are_shown_in_words_the_gravest_first(browser, database, busy):
    changes = [
        {"opened_at": START + number * DAY, "severity": Severity.INFO} for number in range(7)
    ]
    worst = {
        "kind": Kind.RETRY_LOOP,
        "part": Part.AGENT,
        "agent": "agent-1",
        "severity": Severity.CRITICAL,
        "opened_at": START - 9 * DAY,
    }
    stored(database, *changes, worst, {"resolved_at": NOW, "resolution": "ended"})
    stored(database, {}, tenant="org-b")
    set_names(database, TENANT, {"agent-1": HOSTILE}, NOW, by="tester")
    page = browser.get(DASHBOARD)
    card = re.search(r'data-card="attention".*?</section>', page.text, re.DOTALL)[0]
    assert '<span class="count">8</span>' in card
    links = re.findall(r'<a href="/dashboard/findings/([0-9a-f]{32})">(.*?)</a>', card)
    assert len(links) == 6
    assert links[0][0] == f"{7:032x}"
    assert html.escape(HOSTILE) in links[0][1]
    assert [link for link, _ in links[1:]] == [f"{number:032x}" for number in (6, 5, 4, 3, 2)]
    assert "made 83 % of the excess" in text_of_html(card)
    assert "2 more" in card
    assert HOSTILE not in page.text


def test_a_calm_organization_says_so(browser, busy):
    assert "Nothing unusual is open" in text_of(browser.get(DASHBOARD))


@pytest.mark.parametrize("agents", [1, 300])
def test_the_page_costs_few_statements_and_bytes(browser, database, agents):
    fill(database, long_history(agents))
    stored(database, *({"agents": (Share("agent-1", 9, 1, 0.5),)} for _ in range(9)))
    for query in [*RANGES, "range=13w&zone=America/New_York&vs=year&organizationId="]:
        with statements(browser.app.extensions["analytics"].database) as sent:
            page = browser.get(f"{DASHBOARD}?{query}")
        assert page.status_code == 200
        assert len(sent) <= MOST_STATEMENTS, sent
        assert len(page.data) < MOST_BYTES, query


@pytest.mark.parametrize(
    "query", ["range=28d&vs=year", "range=13w&zone=America/New_York&vs=before"]
)
@pytest.mark.parametrize(
    "rest",
    [
        "",
        "DELETE FROM {} WHERE date < '2026-01-10'",
        "DELETE FROM {} WHERE date < '2026-03-25'",
        "DELETE FROM {}",
    ],
)
def test_a_page_costs_as_little_while_finer_tables_are_filled(browser, database, query, rest):
    """After an upgrade no table has each day yet, and what has them is known by the same reads."""
    fill(database, long_history(40))
    stored(database, {"agents": (Share("agent-1", 9, 1, 0.5),)})
    forgotten = [rest.format(one) for one in ("hourly_issuance", "daily_agent_issuance") if rest]

    def forget(connection):
        for statement in forgotten:
            connection.execute(sa.text(statement))
        connection.execute(sa.update(rollup_state).values(backfilled=0, backfill_end=9))

    database.write(forget)
    with statements(browser.app.extensions["analytics"].database) as sent:
        page = browser.get(f"{DASHBOARD}?{query}")
    assert page.status_code == 200
    assert len(sent) <= MOST_STATEMENTS, sent


def long_history(agents):
    """Two years of long numbers, and agents that are all issued tokens on the last days."""
    begin = NOW.replace(hour=9, minute=0)
    found = [(begin - ago * DAY, "agent-0", 123_456 + 1000 * (ago % 9)) for ago in range(800)]
    return found + [
        (begin - ago * DAY, f"00000000-0000-4000-8000-{agent:012}", 1000 + agent)
        for ago in range(8)
        for agent in range(agents)
    ]


def test_nobody_sees_another_organizations_numbers(browser, database, issue, roll_up):
    issue(NOW, times=3, tenant="org-b", agent="their-agent")
    issue(NOW)
    roll_up()
    stored(database, {}, tenant="org-b")
    page = browser.get(DASHBOARD)
    assert "their-agent" not in page.text
    assert tile(page, "Tokens").startswith("1 ")
    assert "Nothing unusual is open" in text_of(page)
    other = browser.another()
    assert place(other.get(DASHBOARD)) == SIGNIN
    other.sign_in(organization_id="org-b")
    assert tile(other.get(DASHBOARD), "Tokens").startswith("3 ")


NAMES = ["W" * 255, "\u202e" + "\u05d0" * 254, "\u200b" * 255, "\U0001f600" * 255, HOSTILE]


def test_large_numbers_and_strange_names_are_shown(browser, database):
    """A trillion tokens a day, and names that are long, right to left, or not to be seen."""
    agents = [(NOW - ago * DAY, f"agent-{ago % 5}", 10**12 + ago) for ago in range(400)]
    fill(database, agents)
    set_names(
        database,
        TENANT,
        {f"agent-{number}": name for number, name in enumerate(NAMES)},
        NOW,
        by="tester",
    )
    stored(database, *({"agents": (Share(f"agent-{n}", 9, 1, 0.5),)} for n in range(5)))
    for query in RANGES:
        page = browser.get(f"{DASHBOARD}?{query}")
        assert page.status_code == 200
        assert len(page.data) < MOST_BYTES, query
        assert HOSTILE not in page.text
    assert tile(browser.get(f"{DASHBOARD}?range=7d"), "Tokens").startswith("7,000,000,000,021 ")
    assert "1,000,000,000,001 tokens" in browser.get(DASHBOARD).text


def test_one_event_is_a_page(browser, issue, roll_up, counted_at):
    issue(NOW)
    roll_up()
    counted_at(timedelta(0))
    page = browser.get(DASHBOARD)
    assert tile(page, "Tokens") == "1 the first tokens are of Wed 15 Apr 2026"
    assert tile(page, "Today so far") == "1 the usual is known after 3 weeks"
    assert tile(page, "A usual weekday") == "– known after 3 of them"  # noqa: RUF001
    assert "1 token" in text_of(page)


def test_days_that_cannot_be_read_are_explained(browser, database):
    """In a zone whose hours are missing. The page is still there, and UTC has all days."""
    fill(database, some_days(60))
    missing = [
        sa.delete(hourly_issuance).where(hourly_issuance.c.date < date(2026, 4, 1)),
        sa.update(rollup_state).values(hours_from=date(2026, 4, 1)),
    ]
    for statement in missing:
        database.write(lambda connection, one=statement: connection.execute(one))
    page = browser.get(f"{DASHBOARD}?zone=Europe/Berlin")
    assert "The hours of Europe/Berlin are known from Thu 2 Apr on" in text_of(page)
    assert len(bars(page)) == 14
    assert "the days before cannot be read" in tile(page, "Tokens")
    page = browser.get(f"{DASHBOARD}?zone=Europe/Berlin&from=2026-03-01&to=2026-03-31")
    assert "These days cannot be shown in Europe/Berlin." in text_of(page)
    assert len(bars(browser.get(f"{DASHBOARD}?zone=UTC"))) == 28


def test_half_hours_are_explained(browser, busy):
    text = text_of(browser.get(f"{DASHBOARD}?zone=Asia/Kolkata"))
    assert "hours run from :30 to :30" in text


def test_a_field_left_empty_is_as_good_as_left_out(browser, busy):
    assert text_of(browser.get(f"{DASHBOARD}?range=&from=&to=&zone=")) == text_of(
        browser.get(DASHBOARD)
    )


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("range=90d", "Range"),
        ("vs=last", "Vs"),
        ("from=2026-04-01", "To"),
        ("from=2025-01-01&to=2026-04-01", "To"),
        ("from=2026-02-30&to=2026-04-01", "From"),
        ("zone=Mars", "Zone"),
        ("zone=../etc", "Zone"),
        ("zone=Europe", "Zone"),
        ("zone=%00", "Zone"),
    ],
)
def test_a_wrong_choice_is_told_on_a_page(browser, query, name):
    answer = browser.get(f"{DASHBOARD}?{query}")
    assert (answer.status_code, answer.mimetype) == (400, "text/html")
    assert f"{name} " in answer.text


@pytest.mark.parametrize("days", ["1970-01-01", "9999-12-31"])
def test_the_ends_of_the_calendar_are_pages(browser, busy, days):
    for zone in ("UTC", "Pacific/Auckland", "America/Los_Angeles"):
        page = browser.get(f"{DASHBOARD}?from={days}&to={days}&zone={zone}&vs=year")
        assert page.status_code == 200
        assert len(bars(page)) == 1
