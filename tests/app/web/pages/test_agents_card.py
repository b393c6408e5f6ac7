"""The card of the agents: the API's numbers, searches, orders, kinds and pages; hostile names."""

import html
import random
import re
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
import sqlalchemy as sa
from werkzeug.datastructures import MultiDict

from app.detection import Part, Share
from app.errors import ValidationError
from app.intake.agent_names import set_names
from app.reports import agent_list, agent_periods
from app.storage.tables import daily_agent_issuance, daily_issuance, rollup_state
from app.web.pages.agent_list import SIZES, ListChoice, parse_list
from tests.support.findings import stored
from tests.support.pages import DASHBOARD, Browser
from tests.support.settings import NOW, TENANT
from tests.support.statements import statements
from tests.support.summaries import fill
from tests.support.tokens import bearer

ZONES = ["UTC", "Europe/Berlin", "Asia/Kolkata", "America/New_York", "Pacific/Auckland"]
HOSTILE = {
    "agent-0": "<script>alert(1)</script>",
    "agent-1": "\N{HEBREW LETTER ALEF}\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe",
    "agent-2": "zero\N{ZERO WIDTH SPACE}width",
    "agent-3": "x" * 255,
    "agent-4": '" onmouseover="alert(1)',
    "agent-5": "{{ 7 * 7 }}",
}


@pytest.fixture
def browser(client):
    browser = Browser(client)
    browser.sign_in()
    return browser


@pytest.fixture
def months(database):
    """Months in which agents are active at one hour each, and come and go."""
    dice = random.Random(3)
    events = []
    for number in range(16):
        first, last = sorted(dice.sample(range(150), 2))
        first, last = (0, 150) if number < 4 else (first, last)
        for ago in range(first, last):
            when = (NOW - timedelta(days=ago)).replace(hour=(number * 5) % 24, minute=1)
            if when < NOW - timedelta(hours=1):
                events += [(when, f"agent-{number}")] * dice.choice((0, 1, 1 + number % 5))
    fill(database, events)
    fill(database, [(NOW, "theirs")] * 9, tenant="org-b")
    set_names(database, TENANT, HOSTILE, NOW, by="tester")
    set_names(database, "org-b", {"agent-7": "name of another"}, NOW, by="tester")


def page_of(browser, query=""):
    page = browser.get(f"{DASHBOARD}?{query}")
    assert page.status_code == 200, page.text
    return page.text


def card(browser, query=""):
    found = re.search(
        r'<section [^>]*data-card="agents".*?</section>', page_of(browser, query), re.S
    )
    return found[0]


def rows(text):
    """The id and the number of each row."""
    found = []
    for row in re.findall(r"<tr><td.*?(?=<tr>|</tbody>)", text, re.S):
        name, *more = re.findall(r"<bdi>(.*?)</bdi>", row)
        count = re.search(r'<td class="num c-n">([\d,]+)', row)[1]
        found.append((html.unescape(more[0] if more else name), int(count.replace(",", ""))))
    return found


def test_rows_are_those_of_the_api(client, browser, months):
    """In random ranges of several zones the agents, their order and numbers are the API's."""
    dice = random.Random(8)
    for zone in ZONES:
        last = (NOW - timedelta(days=dice.randrange(100))).date()
        first = last - timedelta(days=dice.choice((0, 6, 27, 60)))
        query = f"from={first}&to={last}&zone={zone}"
        answer = client.get(f"/api/v1/analytics/agents?{query}", headers=bearer())
        expected = [(one["agentId"], one["tokenCount"]) for one in answer.json["data"]]
        text = card(browser, f"{query}&size=all")
        assert rows(text) == expected
        assert f"{len(expected)} with tokens" in text
        assert rows(card(browser, query)) == expected[:12]


def test_names_are_text(browser, months):
    """Names that are markup, change the direction of text or are long harm no page."""
    text = card(browser, "range=12m&size=all")
    for agent, name in HOSTILE.items():
        assert f"<bdi>{html.escape(name, quote=False)}</bdi>" in text.replace("&#34;", '"')
        assert f'<span class="mono"><bdi>{agent}</bdi></span>' in text
    for search in ("<script>", '"><b>', "{{ 7"):
        page = page_of(browser, f"range=12m&q={search.replace('{', '%7B')}")
        assert search not in page.split("<main")[1] or search == "{{ 7"
        assert html.escape(search).replace("&quot;", "&#34;") in page
    assert "theirs" not in text
    assert "name of another" not in text


def test_a_search_finds_parts_of_names_and_ids(browser, months):
    assert [agent for agent, _ in rows(card(browser, "range=12m&q=WIDTH"))] == ["agent-2"]
    assert [agent for agent, _ in rows(card(browser, "range=12m&q=GENT-3"))] == ["agent-3"]
    text = card(browser, "range=12m&q=bling&sort=name")
    assert "No name or id contains “<bdi>bling</bdi>”." in text
    assert re.search(r"Show all \d+</a>", text)
    for wildcard in ("%25", "_", "\\"):
        assert "No name or id contains" in card(browser, f"range=12m&q={wildcard}")


def test_every_order_says_so(browser, months):
    for sort, label in (
        ("tokens", "Tokens"),
        ("name", "Agent"),
        ("change", "Change"),
        ("seen", "Last seen"),
    ):
        text = card(browser, f"range=13w&size=all&sort={sort}")
        found = re.search(r'aria-sort="(ascending|descending)"><a href="[^"]+">([\w ]+)', text)
        assert found.groups() == ("ascending" if sort == "name" else "descending", label)
        assert text.count("aria-sort") == 1
        ids = [agent for agent, _ in rows(text)]
        assert sorted(ids) == sorted(
            agent for agent, _ in rows(card(browser, "range=13w&size=all"))
        )
    names = [
        html.unescape(name)
        for name in re.findall(
            r'who"><a[^>]+><bdi>(.*?)</bdi>', card(browser, "range=12m&sort=name&size=all")
        )
    ]
    named = [name for name in names if name in HOSTILE.values()]
    assert names[: len(named)] == sorted(named, key=str.lower)


def test_last_seen_is_in_the_order_of_days(browser, database):
    """Also where a zone's day begins within a UTC day, in both directions."""
    dice = random.Random(2)
    events = [(NOW - timedelta(hours=dice.randrange(24 * 20)), f"agent-{n}") for n in range(30)]
    fill(database, events)
    for zone in ("Asia/Tokyo", "America/Los_Angeles", "UTC"):
        text = card(browser, f"range=28d&sort=seen&size=all&zone={zone}")
        seen = re.findall(r'c-seen">(\d+) (\w+)', text)
        days = [(month == "Apr", int(day)) for day, month in seen]
        assert len(days) == 30
        assert days == sorted(days, reverse=True)


def test_kinds_have_their_numbers(browser, database):
    old = NOW - timedelta(days=40)
    steady = [(old + timedelta(days=day), "steady") for day in range(40)]
    before = [(old + timedelta(days=day), "retired") for day in range(13)] * 3
    rising = [(old, "rising"), *[(NOW - timedelta(days=2), "rising")] * 200]
    fill(database, [*steady, *before, *rising, (NOW - timedelta(days=1), "fresh")])
    set_names(database, TENANT, {"steady": "Steady"}, NOW, by="tester")
    text = card(browser, "range=28d")
    chips = dict(re.findall(r'">(All|Rising|New|Quiet|Unnamed) (\d+)</a>', text))
    assert chips == {"All": "3", "Rising": "1", "New": "1", "Quiet": "1", "Unnamed": "2"}
    for kind, agents in (
        ("rising", ["rising"]),
        ("new", ["fresh"]),
        ("quiet", ["retired"]),
        ("unnamed", ["rising", "fresh"]),
    ):
        text = card(browser, f"range=28d&show={kind}")
        assert [agent for agent, _ in rows(text)] == agents
        assert f'aria-current="true">{kind.capitalize()} ' in text
    assert '<span class="tag warn">quiet</span>' in card(browser, "range=28d&show=quiet")
    text = card(browser, "range=28d&vs=none")
    assert "Rising" not in text
    assert "Quiet" not in text
    assert "No agent is rising in this period." in card(browser, "vs=none&show=rising")


def test_pages_show_every_agent_once(browser, database):
    fill(database, [(NOW, f"agent-{number:03}") for number in range(130)])
    query, found = "range=7d", []
    for _ in range(11):
        text = card(browser, query)
        found += [agent for agent, _ in rows(text)]
        following = re.search(r'rel="next" href="([^"]+)"', text)
        query = urlsplit(html.unescape(following[1])).query if following else ""
    assert (found, query) == ([f"agent-{number:03}" for number in range(130)], "")
    assert "13–24 of 130" in card(browser, "range=7d&page=2")  # noqa: RUF001
    text = card(browser, "range=7d&size=all&page=4")
    assert "109–130 of 130" in text  # noqa: RUF001
    assert 'rel="prev"' in text
    assert "There are no agents on page 99." in card(browser, "range=7d&page=99")


def test_choices_are_kept_but_the_page(browser, months):
    """Links of ranges keep the search, the order and the kind; a new search begins at page 1."""
    query = "range=13w&q=agent&sort=seen&show=unnamed&page=1&zone=Asia/Tokyo"
    page = page_of(browser, query)
    link = re.search(r'<a href="([^"]+)">12 months</a>', page)[1]
    found = parse_qs(urlsplit(html.unescape(link)).query)
    assert found == {
        "range": ["12m"],
        "q": ["agent"],
        "sort": ["seen"],
        "show": ["unnamed"],
        "zone": ["Asia/Tokyo"],
    }
    for form in re.findall(r"<form.*?</form>", page, re.S):
        if 'name="vs"' in form:
            assert '<input type="hidden" name="q" value="agent">' in form
            assert 'name="page"' not in form
        if 'id="find"' in form:
            assert '<input type="hidden" name="zone" value="Asia/Tokyo">' in form
            assert '<input type="hidden" name="sort" value="seen">' in form
            assert 'name="page"' not in form
            assert form.count('name="q"') == 1


def test_unusual_days_are_marked(browser, database):
    """A finding of an agent gives it a tag, and its days another colour."""
    fill(database, [(NOW - timedelta(days=1, hours=hour), "agent-1") for hour in range(60)])
    share = (Share("agent-1", 3900, 780, 0.83),)
    stored(database, {"agents": share}, tenant="org-b")
    assert 'class="sp"' not in card(browser, "range=7d")
    own = {"agent": "agent-1", "part": Part.AGENT, "agents": share}
    stored(database, {"agents": share}, own, {"agents": (Share("agent-1", 9, 1, 0.4),)})
    text = card(browser, "range=7d")
    assert len(re.findall(r'<path class="sp" d="M5 12V', text)) == 1
    assert '<span class="tag hot">3.7× usual</span>' in text  # noqa: RUF001
    assert 'class="sp"' not in card(browser, "from=2026-04-01&to=2026-04-13")


def test_days_that_are_not_kept_are_a_sentence(browser, database, months):
    """The other cards are still shown."""
    day = sa.update(rollup_state).values(agents_from=NOW.date())
    database.write(
        lambda connection: connection.execute(
            sa.delete(daily_agent_issuance).where(daily_agent_issuance.c.date < NOW.date())
        )
    )
    database.write(lambda connection: connection.execute(day))
    text = card(browser, "range=28d")
    assert "These days have no list of agents." in text
    assert "From must be 2026-04-1" in text
    filling = sa.update(rollup_state).values(backfill_end=5, backfilled=1)
    database.write(lambda connection: connection.execute(filling))
    assert "still being filled" in card(browser, "range=28d")


def test_days_before_that_are_gone_are_not_compared(browser, database, months):
    first = (NOW - timedelta(days=30)).date()
    gone = sa.delete(daily_agent_issuance).where(daily_agent_issuance.c.date < first)
    database.write(lambda connection: connection.execute(gone))
    database.write(
        lambda connection: connection.execute(sa.update(rollup_state).values(agents_from=first))
    )
    text = card(browser, "range=28d")
    assert rows(text)
    assert "Rising" not in text
    assert text.count('class="delta none"') == len(rows(text))


def test_of_too_many_agents_the_largest_of_the_month_are_shown(
    client, browser, months, monkeypatch
):
    """Their days are not read, so that a million agents cost no minutes."""
    monkeypatch.setattr(agent_periods, "MOST", 3)
    monkeypatch.setattr(agent_list, "MOST", 3)
    text = card(browser, "range=28d&show=new&q=x")
    assert "There are more than 3 agents a month. These are the largest of April 2026." in text
    answer = client.get("/api/v1/analytics/agents?month=2026-04&limit=12", headers=bearer())
    assert rows(text) == [(one["agentId"], one["tokenCount"]) for one in answer.json["data"]]


def test_the_list_is_one_statement_and_few_bytes(browser, database):
    """At any range, whatever was chosen."""
    days = [(NOW - timedelta(days=day)).date() for day in range(370)]
    ids = [f"00000000-0000-4000-8000-{number:012}" for number in range(40)]
    values = [
        {
            "tenant_id": TENANT,
            "date": day,
            "agent_id": agent,
            "issued": 12_345 + place % 997,
            "hours": 7,
        }
        for place, (day, agent) in enumerate((day, agent) for day in days for agent in ids)
    ]
    totals = [{"tenant_id": TENANT, "date": day, "issued": 1} for day in days]
    database.write(lambda connection: connection.execute(sa.insert(daily_agent_issuance), values))
    database.write(lambda connection: connection.execute(sa.insert(daily_issuance), totals))
    set_names(
        database,
        TENANT,
        dict.fromkeys(ids, "a name as names are, of some length"),
        NOW,
        by="tester",
    )
    database.write(
        lambda connection: connection.execute(sa.update(rollup_state).values(last_finished=NOW))
    )
    for query, most in (
        ("range=12m&vs=year", 19_000),
        ("range=13w&sort=change", 14_000),
        ("range=28d&q=0&zone=Asia/Kolkata", 15_000),
    ):
        with statements(browser.app.extensions["analytics"].database) as sent:
            text = card(browser, query)
        lists = [one for one in sent if "daily_agent_issuance" in one and "budgets" not in one]
        assert len(lists) == 1
        assert len(rows(text)) == 12
        assert len(text.encode()) < most, query


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ListChoice()),
        ("q=&sort=&show=&page=&size=", ListChoice()),
        ("q=a b&sort=seen&show=new&page=7&size=all", ListChoice("a b", "new", "seen", "all", 7)),
    ],
)
def test_choices_are_parsed(query, expected):
    args = MultiDict(part.split("=") for part in query.split("&") if part)
    assert parse_list(args) == expected
    assert parse_list(MultiDict(expected.query(page=expected.page))) == expected


@pytest.mark.parametrize(
    "query", ["sort=x", "show=x", "size=13", "page=0", "page=1.5", "q=\x00", "q=" + "x" * 256]
)
def test_invalid_choices_are_refused(query):
    with pytest.raises(ValidationError):
        parse_list(MultiDict([query.split("=")]))


def test_the_list_of_all_agents_is_below_60_kb(browser, database):
    """It leaves out the cards that would make the page larger."""
    days = [NOW - timedelta(days=ago) for ago in range(90)]
    fill(database, [(day, f"{'agent' * 6}-{n:03}", 5) for day in days for n in range(40)])
    for period in ("7d", "13w", "12m"):
        page = browser.get(f"{DASHBOARD}?size=all&range={period}&zone=Asia/Kolkata&vs=year")
        assert page.text.count('class="who"') == SIZES["all"]
        assert len(page.data) < 60_000, period
    assert 'data-card="week"' not in page.text
