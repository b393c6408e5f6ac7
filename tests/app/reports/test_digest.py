"""Digests: weeks and months, the numbers of whole counted days, and texts of hostile names."""

import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser

import pytest

from app.alerts.budgets import set_budget
from app.alerts.digests import organization_digest
from app.detection import Kind, Part, Range, Severity, Share
from app.intake.agent_names import set_names
from app.intake.organization_settings import OrganizationSettings, Price, store_settings
from app.reports.digest import last_period, month_period, parse_month_name, parse_week, week_of
from app.reports.digest_texts import FORMS, digest_text, subject
from tests.support.findings import SPIKE, stored
from tests.support.settings import NOW, TENANT
from tests.support.statements import statements
from tests.support.summaries import fill

WEEK = parse_week("2026-W15")  # 6 to 12 April
MONDAY = datetime(2026, 4, 6, 9, tzinfo=UTC)
DAY = timedelta(days=1)
HOSTILE = "<script>alert(1)</script>|`*_[x](http://evil.example)\u202e\u05d0\u05d1"


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2026-W14", date(2026, 3, 30), date(2026, 4, 5)),
        ("2020-W53", date(2020, 12, 28), date(2021, 1, 3)),
        ("2026-W01", date(2025, 12, 29), date(2026, 1, 4)),
        ("1970-W01", date(1969, 12, 29), date(1970, 1, 4)),
    ],
)
def test_a_week_begins_on_monday(text, first, last):
    """Weeks are those of ISO 8601. Each is compared with the week before it."""
    week = parse_week(text)
    assert (week.name, week.first, week.last) == (text, first, last)
    assert (week.before_first, week.before_last) == (first - 7 * DAY, first - DAY)


def test_a_month_is_compared_with_the_month_before():
    month = parse_month_name("2026-03")
    assert (month.first, month.last) == (date(2026, 3, 1), date(2026, 3, 31))
    assert (month.before_first, month.before_last) == (date(2026, 2, 1), date(2026, 2, 28))
    assert month == month_period(date(2026, 3, 17))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-14",
        "2026W14",
        "2026-W00",
        "2026-W54",
        "2025-W53",
        "1969-W01",
        "9999-W01",
        "٢٠٢٦-W14",
    ],
)
def test_an_invalid_week_is_refused(text):
    with pytest.raises(ValueError, match="must be a week"):
        parse_week(text)


@pytest.mark.parametrize("text", ["", "2026-13", "2026-3", "1969-12", "9999-12"])
def test_an_invalid_month_is_refused(text):
    with pytest.raises(ValueError, match="must be a month"):
        parse_month_name(text)


def test_the_last_period_is_over():
    assert last_period("weekly", date(2026, 4, 13)) == WEEK
    assert last_period("weekly", date(2026, 4, 12)).name == "2026-W14"
    assert last_period("monthly", date(2026, 4, 1)).name == "2026-03"
    assert last_period("monthly", date(2026, 1, 31)).name == "2025-12"
    assert week_of(date(2026, 4, 12)) == WEEK


@pytest.fixture
def filled(database):
    """Four weeks of two agents, one of which rises in the last week, and a new one in it."""
    issued = [(MONDAY - (21 - day) * DAY, "steady", 100) for day in range(31)]
    issued += [(MONDAY - 7 * DAY + day * DAY, "riser", 50) for day in range(7)]
    issued += [(MONDAY + day * DAY, "riser", 150) for day in range(7)]
    issued += [(MONDAY + 2 * DAY, "newcomer", 7), (MONDAY - 2 * DAY, "leaver", 70)]
    fill(database, issued, counted_at=NOW)
    set_names(database, TENANT, {"steady": "billing"}, NOW, by="tester")
    return database


@pytest.fixture
def read(filled, settings):
    def read(period=WEEK, now=NOW, tenant=TENANT):
        with filled.snapshot() as connection:
            return organization_digest(connection, tenant, period, settings, now)

    return read


def test_a_digest_has_the_numbers_of_its_week(read):
    found = read()
    assert (found.counted, found.is_whole) == (7, True)
    assert (found.token_count, found.previous) == (1757, 1120)
    assert found.change == pytest.approx(1757 / 1120 - 1)
    assert [day.count for day in found.data] == [250, 250, 257, 250, 250, 250, 250]
    agents = found.agents
    assert [one.agent_id for one in agents.top] == ["riser", "steady", "newcomer"]
    assert [one.agent_name for one in agents.top] == [None, "billing", None]
    assert [(one.agent_id, one.change) for one in agents.rising] == [("riser", 2.0)]
    assert [one.agent_id for one in agents.new] == ["newcomer"]
    assert [one.agent_id for one in agents.quiet] == ["leaver"]
    assert (found.cost, found.waste, found.findings, found.budgets) == (None, None, [], [])


def test_a_week_that_is_not_over_says_so(read):
    """Only whole counted days are in it, beside the same days of the week before."""
    found = read(week_of(NOW.date()))
    assert (found.counted, found.is_whole) == (2, False)
    assert (found.token_count, found.previous) == (200, 500)
    for form in ("text", "markdown", "html"):
        assert "Only 2 of 7 days are counted to its end yet" in digest_text(found, form)
    none = read(week_of(NOW.date() + 7 * DAY))
    assert (none.counted, none.token_count, none.change) == (0, 0, None)
    assert "No day is counted to its end yet" in digest_text(none, "text")


def test_nothing_is_compared_with_days_before_the_first_token(read):
    first = week_of(MONDAY.date() - 21 * DAY)
    assert (read(first).token_count, read(first).previous, read(first).change) == (700, None, None)
    second = week_of(MONDAY.date() - 14 * DAY)
    assert read(second).change is None  # its first day may have begun late


def test_a_month_is_compared_by_tokens_a_day(read, filled):
    found = read(parse_month_name("2026-04"))
    assert found.counted == 14
    assert found.change is None
    fill(filled, [(datetime(2026, 1, 5, tzinfo=UTC) + day * DAY, "a", 10) for day in range(86)],
         tenant="b")  # fmt: skip
    march = read(parse_month_name("2026-03"), tenant="b")
    assert (march.token_count, march.previous, march.change) == (310, 280, 0.0)


def test_findings_waste_price_and_budgets_are_in_it(read, filled):
    """Corrected findings are left out, the gravest are first."""
    waste = {
        "kind": Kind.TOKEN_WASTE,
        "part": Part.AGENT,
        "agent": "riser",
        "severity": Severity.INFO,
        "observed": 1050,
        "usual": Range(350, 350, 350),
        "agents": (Share("riser", 1050, 350, 1.0),),
        "detail": "waste",
    }
    of_week = {"start": MONDAY, "end": MONDAY + DAY, "opened_at": MONDAY + DAY}
    grave = {"severity": Severity.CRITICAL}
    corrected = {"resolution": "corrected", "resolved_at": NOW}
    stored(filled, of_week | waste, of_week, of_week | grave, of_week | corrected, {})
    price = OrganizationSettings(price=Price(2.0, "EUR"))
    store_settings(filled, TENANT, price, NOW, by="tester")
    set_budget(filled, TENANT, None, "day", 255, now=NOW, by="tester")
    set_budget(filled, TENANT, "steady", "month", 2000, now=NOW, by="tester")
    found = read()
    assert [one.severity for one in found.findings] == ["critical", "warning", "info"]
    assert found.finding_count == 3
    assert (found.waste.agents, found.waste.token_count) == (1, 700)
    assert found.waste.cost == pytest.approx(1.4)
    assert (found.cost, found.currency) == (pytest.approx(3.514), "EUR")
    own, of_agent = found.budgets
    assert (own.agent_id, own.period, own.exceeded_days) == (None, "day", 1)
    assert (of_agent.agent_name, of_agent.tokens, of_agent.used) == ("billing", 2000, 1500)
    for form in FORMS:
        text = digest_text(found, form, "https://analytics.example")
        assert "EUR" in text
        assert "/dashboard?from=2026-04-06&" in text
    assert subject(found).startswith("org-a: 1,757 tokens in week 15 of 2026, +56.9 %")


def test_another_organization_has_nothing(read):
    found = read(tenant="org-b")
    assert (found.token_count, found.agents.active, found.findings) == (0, 0, [])
    assert "org-b" in digest_text(found, "text")


def test_a_digest_costs_few_statements(filled, settings):
    with statements(filled) as sent, filled.snapshot() as connection:
        organization_digest(connection, TENANT, WEEK, settings, NOW)
    assert len(sent) <= 14


class Mail(HTMLParser):
    """The elements of an e-mail, and its text."""

    def __init__(self):
        super().__init__()
        self.tags, self.text, self.links = [], "", []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src")]
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data):
        self.text += data


def test_hostile_names_stay_text(read, filled):
    """In no form does a name become markup, a link, or a control. Long ones are cut."""
    set_names(filled, TENANT, {"riser": HOSTILE, "newcomer": "W" * 255}, NOW, by="tester")
    found = read()
    mail = Mail()
    mail.feed(digest_text(found, "html"))
    assert not {"script", "img", "svg", "style", "link", "a"} & set(mail.tags)
    assert "<script>alert(1)</script>" in mail.text
    assert "W" * 60 not in mail.text
    text = digest_text(found, "text")
    assert "\u202e" not in text
    assert "\\u{202e}" in text
    assert all(len(line) < 160 for line in text.splitlines())
    markdown = digest_text(found, "markdown")
    assert not re.search(r"(?<!\\)(<script|\[x\])", markdown)
    assert "\u202e" not in digest_text(found, "brief")


def test_the_chart_is_of_cells_and_of_blocks(read):
    found = read()
    html = digest_text(found, "html")
    assert html.count('bgcolor="#0c6f6b"') == 7
    assert 'width="97%" bgcolor="#0c6f6b"' in html
    assert 'width="100%" bgcolor="#0c6f6b"' in html
    bars = re.findall("\u2588+", digest_text(found, "text"))
    assert len(bars) == 7
    assert max(map(len, bars)) == 24


def test_a_spike_of_the_demo_is_in_words(read, filled):
    in_week = replace(SPIKE, start=MONDAY, end=MONDAY + 11 * timedelta(hours=1))
    stored(filled, {"start": in_week.start, "end": in_week.end})
    assert "5,120 tokens" in digest_text(read(), "brief")
