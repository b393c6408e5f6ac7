"""Budgets: when their findings are opened, updated and resolved."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from app.detection import Options, Severity, advice, summary
from app.detection.budgets import CHANGED, ENDED, OVER, BudgetUse, judge_budget, resolve_budget
from app.detection.findings import BudgetNumbers

BEGIN, END = datetime(2026, 4, 1, tzinfo=UTC), datetime(2026, 5, 1, tzinfo=UTC)
AT = datetime(2026, 4, 15, 12, tzinfo=UTC)


def use(used, projected, tokens=1000, *, agent="", at=AT):
    crosses_on = date(2026, 4, 20) if projected >= tokens else None
    numbers = BudgetNumbers("month", tokens, projected, crosses_on)
    return BudgetUse(agent, numbers, BEGIN, END, used, at)


@pytest.mark.parametrize(
    ("used", "projected", "detail", "severity"),
    [
        (100, 999, None, None),
        (799, 999, None, None),
        (100, 1000, "crosses", Severity.INFO),
        (800, 900, "most", Severity.WARNING),
        (999, 2000, "most", Severity.WARNING),
        (1000, 1500, "all", Severity.CRITICAL),
    ],
)
def test_each_threshold_has_a_severity(used, projected, detail, severity):
    found = judge_budget("t", use(used, projected), None)
    if detail is None:
        assert found is None
    else:
        assert (found.detail, found.severity, found.observed) == (detail, severity, used)
        assert (found.start, found.end, found.opened_at) == (BEGIN, END, AT)


def test_it_is_one_finding_that_rises():
    found = None
    for used, projected in ((500, 1100), (810, 1200), (1000, 1300)):
        at = AT + timedelta(hours=used)
        found = judge_budget("t", use(used, projected, at=at), found)
        assert found.opened_at == AT + timedelta(hours=500)
    assert found.severity is Severity.CRITICAL
    assert found.id == judge_budget("t", use(500, 1100), None).id


def test_its_id_depends_on_organization_agent_and_period():
    month = use(1000, 1000)
    ids = {
        judge_budget("t", month, None).id,
        judge_budget("other", month, None).id,
        judge_budget("t", replace(month, agent="a"), None).id,
        judge_budget("t", replace(month, begin=END), None).id,
        judge_budget("t", replace(month, numbers=replace(month.numbers, period="day")), None).id,
    }
    assert len(ids) == 5


def test_what_is_not_worth_telling_changes_nothing():
    found = judge_budget("t", use(500, 1100), None)
    assert judge_budget("t", use(509, 1190, at=AT + timedelta(hours=1)), found) is found
    assert judge_budget("t", use(510, 1190), found) is not found
    full = judge_budget("t", use(1000, 1100), None)
    assert judge_budget("t", use(1090, 1200), full) is full
    assert judge_budget("t", use(1100, 1200), full) is not full


def test_a_projection_that_no_longer_crosses_ends_it():
    """Not before it is clearly below, so that it does not come and go with each hour."""
    found = judge_budget("t", use(500, 1100), None)
    close = judge_budget("t", use(600, 960), found)
    assert close.is_open
    ended = judge_budget("t", use(600, 940), close)
    assert (ended.resolution, ended.resolved_at) == (ENDED, AT)
    assert judge_budget("t", use(600, 940), ended) is ended
    again = judge_budget("t", use(700, 1000), ended)
    assert again.is_open
    assert again.opened_at == found.opened_at


def test_a_larger_budget_ends_it_and_a_smaller_one_raises_it():
    found = judge_budget("t", use(850, 1100), None)
    changed = judge_budget("t", use(850, 1100, 5000), found)
    assert changed.resolution == CHANGED
    smaller = judge_budget("t", use(850, 1100, 800), found)
    assert (smaller.detail, smaller.severity) == ("all", Severity.CRITICAL)
    larger = judge_budget("t", use(850, 1100, 1050), smaller)
    assert (larger.detail, larger.severity) == ("most", Severity.CRITICAL)


def test_it_is_over_with_its_period():
    found = judge_budget("t", use(850, 1100), None)
    over = resolve_budget(found, END + timedelta(hours=3), OVER)
    assert (over.resolved_at, over.resolution) == (END, OVER)
    assert resolve_budget(over, END + timedelta(days=3), OVER) is over


def test_its_sentence_has_its_numbers():
    options = Options(names={"a": "billing"})
    found = judge_budget("t", use(500, 1100), None)
    assert summary(found, options) == (
        "50 % of the budget of Apr 2026 are used: 500 of 1,000 tokens; it will be crossed on Mon 20"
        " Apr, 1,100 are expected by its end."
    )
    full = judge_budget("t", use(1000, 1500, agent="a"), None)
    assert summary(full, options) == (
        "billing: 100 % of the budget of Apr 2026 are used: 1,000 of 1,000 tokens; 1,500 are"
        " expected by its end."
    )
    within = judge_budget("t", use(850, 900), None)
    assert summary(within, options).endswith("900 are expected by its end, which is within it.")
    assert advice(found).endswith("See docs/insight.md#budget.")
