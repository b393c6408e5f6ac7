"""The dashboard page: its content, its visitors and its cost."""

import html
import re
from datetime import timedelta

import pytest
import sqlalchemy as sa

from app.detection import Share
from app.intake.agent_names import set_names
from app.storage.tables import rollup_state
from tests.support.findings import stored
from tests.support.pages import DASHBOARD, SIGNIN, Browser, place
from tests.support.settings import NOW, TENANT
from tests.support.statements import statements
from tests.support.tokens import bearer

HOSTILE = "<img src=x onerror=alert(1)>"
MOST_BYTES, MOST_QUERIES = 40_000, 4


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
    body = re.sub(r"<(script|datalist|select)\b.*?</\1>", "", answer.text, flags=re.DOTALL)
    plain = html.unescape(re.sub(r"<[^>]+>", " ", body)).replace("\N{NO-BREAK SPACE}", " ")
    return " ".join(plain.split())


@pytest.fixture
def busy(issue, roll_up):
    """Six weeks: more each day, and one agent with most of it."""
    for ago in range(42):
        day = NOW - timedelta(days=ago)
        issue(day.replace(hour=9), times=9, agent="agent-1")
        issue(day.replace(hour=10), agent=f"agent-{ago}")
    roll_up()


def test_each_reports_numbers_are_those_of_the_api(client, browser, busy, counted_at):
    counted_at(timedelta(0))
    page = browser.get(f"{DASHBOARD}?days=7&agents=all")
    text = text_of(page)
    for point in client.get("/api/v1/analytics/tokens?days=7", headers=bearer()).json["data"]:
        day = point["date"][-2:].removeprefix("0")
        assert re.search(rf"<title>\w+ {day} Apr: {point['count']}[,<]", page.text)
    for cell in client.get("/api/v1/analytics/agents/activity", headers=bearer()).json["data"]:
        assert re.search(rf' {cell["hour"]}–{cell["hour"] + 1}: {cell["count"]}"', page.text)  # noqa: RUF001
    for agent in client.get("/api/v1/analytics/agents", headers=bearer()).json["data"]:
        assert f" {agent['agentId']} {agent['tokenCount']} " in text
    compared = "The 6 whole days among them: 60, +0.0 % compared with the same days of the 7 days"
    assert f"70 in 7 days. {compared} before (60)." in text


def test_what_cannot_be_compared_has_no_percentage(browser, issue, roll_up, counted_at):
    """Days that are not over, and a period before the first day, are not compared."""
    issue(NOW - timedelta(days=8))
    issue(NOW - timedelta(days=1), times=400)
    roll_up()
    counted_at(timedelta(0))
    text = text_of(browser.get(f"{DASHBOARD}?days=7"))
    assert "400 in 7 days. The first tokens are of Tue 7 Apr 2026, so there is no" in text
    assert " % compared" not in text
    text = text_of(browser.get(f"{DASHBOARD}?days=1"))
    assert "0 in 1 day. No whole day is counted yet, so there is no comparison." in text
    text = text_of(browser.get(f"{DASHBOARD}?days=30"))
    assert "401 in 30 days. There were none on the same days of the 30 days before." in text


def test_the_page_costs_three_queries_and_few_bytes(browser, issue, roll_up):
    for ago in range(180):
        day = NOW - timedelta(days=ago)
        for hour in range(24):
            issue(day.replace(hour=hour, minute=0), agent=f"00000000-0000-4000-8000-{hour:012}")
    roll_up()
    with statements(browser.app.extensions["analytics"].database) as sent:
        page = browser.get(f"{DASHBOARD}?days=90")
    assert page.status_code == 200
    assert len([one for one in sent if one.startswith(("SELECT", "WITH"))]) == MOST_QUERIES
    assert 20_000 < len(page.data) < MOST_BYTES


def test_open_findings_are_shown_in_words(browser, database, busy):
    """The page has the sentence and the advice of each open finding, and no resolved one."""
    name = {"agents": (Share(HOSTILE, 3900, 780, 0.83),)}
    stored(database, name, {"resolved_at": NOW, "resolution": "ended"})
    stored(database, {}, tenant="org-b")
    page = browser.get(DASHBOARD)
    assert page.text.count("<strong>Warning</strong>") == 1
    assert "Tue 14 Apr: 5,120 tokens" in text_of(page)
    assert HOSTILE not in page.text


def test_nobody_sees_another_organizations_numbers(browser, issue, roll_up):
    issue(NOW, times=3, tenant="org-b", agent="their-agent")
    roll_up()
    assert "their-agent" not in browser.get(DASHBOARD).text
    for name in ("tokens", "activity", "agents"):
        assert "their-agent" not in browser.get(f"{DASHBOARD}/{name}.csv").text
    other = browser.another()
    assert place(other.get(DASHBOARD)) == SIGNIN
    other.sign_in(organization_id="org-b")
    assert "their-agent" in other.get(DASHBOARD).text


def test_names_and_searches_are_text(browser, database, issue, roll_up):
    issue(NOW, agent=HOSTILE)
    issue(NOW, agent="agent-2")
    roll_up()
    set_names(database, TENANT, {"agent-2": f"{HOSTILE}2"}, NOW)
    page = browser.get(f"{DASHBOARD}?q=<img")
    assert HOSTILE not in page.text
    assert page.text.count(html.escape(HOSTILE)) == 2
    assert page.text.count('value="&lt;img"') == 2  # the field, and what another form keeps
    assert "contains “<b>”" in text_of(browser.get(f"{DASHBOARD}?q=<b>"))


def test_agents_go_by_their_names(browser, database, issue, roll_up):
    issue(NOW, agent="agent-1")
    roll_up()
    set_names(database, TENANT, {"agent-1": "billing-sync"}, NOW)
    assert "1 billing-sync agent-1 1 100.0 %" in text_of(browser.get(DASHBOARD))
    file = browser.get(f"{DASHBOARD}/agents.csv")
    assert file.text == "agentId,name,tokenCount\r\nagent-1,billing-sync,1\r\n"
    assert file.headers["Content-Disposition"] == 'attachment; filename="agents-2026-04.csv"'


def test_one_agent_with_more_than_80_percent_is_pointed_out(browser, busy):
    assert "agent-1 accounts for 90." in text_of(browser.get(DASHBOARD))


def test_twenty_agents_are_shown_and_all_on_request(browser, busy):
    month = f"{DASHBOARD}?month=2026-03"
    shown = [text_of(browser.get(f"{month}{more}")) for more in ("", "&agents=all")]
    assert "Show all 28 agents" in shown[0]
    assert ["agent-35" in text for text in shown] == [False, True]
    assert "Show all 28 agents" not in shown[1]


def test_agents_come_in_pages_on_request(browser, issue, roll_up):
    """All agents are shown a hundred at a time, with links to the other pages."""
    for number in range(205):
        issue(NOW, agent=f"agent-{number:03}")
    roll_up()
    pages = [browser.get(f"{DASHBOARD}?agents=all&page={page}") for page in (1, 2, 3, 4)]
    shown = [re.findall(r"<bdi>(agent-\d+)</bdi>", page.text) for page in pages]
    assert [len(page) for page in shown] == [100, 100, 5, 0]
    listed = [agent for page in shown for agent in page]
    assert listed == [f"agent-{number:03}" for number in range(205)]
    assert "101 to 200 of 205" in text_of(pages[1])
    for page, links in ((0, ["2"]), (1, ["1", "3"]), (2, ["2"])):
        found = re.findall(r'href="([^"]+)#agents" rel="(?:prev|next)"', pages[page].text)
        queries = [html.unescape(link) for link in found]
        assert queries == [
            f"{DASHBOARD}?agents=all" + (f"&page={number}" if number != "1" else "")
            for number in links
        ]
    assert "There are no agents on page 4." in text_of(pages[3])
    text = text_of(browser.get(DASHBOARD))
    assert "The other 185 agents: 185 tokens, 90.2 %." in text
    assert browser.get(f"{DASHBOARD}?agents=all&page=0").status_code == 400


def test_a_forms_other_choices_are_kept(browser, busy):
    query = "days=7&months=3&zone=Europe/Berlin&month=2026-03&q=agent&sort=name&agents=all"
    page = browser.get(f"{DASHBOARD}?{query}").text
    for name, value in (("days", "7"), ("zone", "Europe/Berlin"), ("q", "agent")):
        assert f'<input type="hidden" name="{name}" value="{value}">' in page
    assert 'name="q" size="18" maxlength="255" value="agent"' in page
    links = {html.unescape(link) for link in re.findall(r'href="(/dashboard[^"]*)"', page)}
    assert f"{DASHBOARD}?{query.replace('days=7', 'days=90')}" in links
    for name in ("tokens", "activity", "agents"):
        assert f"{DASHBOARD}/{name}.csv?bom=1&{query}" in links  # a spreadsheet opens it


def test_a_field_left_empty_is_as_good_as_left_out(browser, busy):
    assert text_of(browser.get(f"{DASHBOARD}?months=&zone=&q=&month=")) == text_of(
        browser.get(DASHBOARD)
    )


@pytest.mark.parametrize(
    "query",
    [
        "days=0",
        "days=91",
        "months=25",
        "month=2026-13",
        "zone=Mars",
        "zone=../etc",
        "zone=Europe",
        "zone=%00",
        "sort=x",
    ],
)
def test_a_wrong_choice_is_told_on_a_page(browser, query):
    answer = browser.get(f"{DASHBOARD}?{query}")
    assert (answer.status_code, answer.mimetype) == (400, "text/html")
    assert f"{query.split('=')[0].capitalize()} must be" in answer.text


def test_hours_move_with_a_zone_of_whole_hours(browser, issue, roll_up):
    """The hours of the week move with a time zone of whole hours and otherwise stay in UTC."""
    issue("2026-04-12T23:30:00Z", times=3)  # Sunday night, in Berlin Monday already
    roll_up()
    assert "Sunday 23–24 UTC, 3" in text_of(browser.get(DASHBOARD))  # noqa: RUF001
    berlin = text_of(browser.get(f"{DASHBOARD}?zone=Europe/Berlin"))
    assert "Monday 1–2 Europe/Berlin, 3" in berlin  # noqa: RUF001
    assert "Europe/Berlin is 2 hours ahead of UTC today" in berlin
    india = text_of(browser.get(f"{DASHBOARD}?zone=Asia/Kolkata"))
    assert "Sunday 23–24 UTC, 3" in india  # noqa: RUF001
    assert "Asia/Kolkata is 5:30 hours ahead of UTC." in india


def test_the_heatmaps_months_are_those_chosen(browser, issue, roll_up):
    issue("2026-03-31T09:00:00Z", times=5)
    issue("2026-04-01T09:00:00Z", times=2)
    roll_up()
    assert "Tuesday 9–10 UTC, 5" in text_of(browser.get(DASHBOARD))  # noqa: RUF001
    this_month = text_of(browser.get(f"{DASHBOARD}?months=1"))
    assert "Tuesday 9–10 UTC" not in this_month  # noqa: RUF001
    assert "100.0 % on weekdays" in this_month


def test_numbers_say_how_old_they_are_and_when_that_is_too_old(browser, busy, counted_at):
    counted_at(timedelta(seconds=45))
    text = text_of(browser.get(DASHBOARD))
    assert "Counted up to 12:29:15 UTC , 45 s ago." in text
    assert "These numbers are old." not in text
    counted_at(timedelta(seconds=46))
    assert "These numbers are old." in text_of(browser.get(DASHBOARD))
    counted_at(timedelta(days=2))
    text = text_of(browser.get(DASHBOARD))
    assert "Counted up to Mon 13 Apr, 12:30:00 UTC , 2 d ago." in text
    assert "Tue 14 Apr – not counted yet" in text  # noqa: RUF001


def test_the_empty_dashboard_shows_how_to_send_events(browser, roll_up):
    """The dashboard of an organization without events shows how to send the first."""
    assert "The first count has not finished yet." in text_of(browser.get(DASHBOARD))
    roll_up()
    text = text_of(browser.get(DASHBOARD))
    assert "The last count found no events of your organization." in text
    assert 'curl -sS -X POST "http://127.0.0.1:5000/api/v1/events"' in text
    assert '"issuedAt": "2026-04-15T12:30:00Z"' in text
    assert "--organization org-a --scope events:write" in text
