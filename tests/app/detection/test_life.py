"""The life of findings: told once, and ended."""

from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest

from app.config.settings import ROOT
from app.detection import (
    Judgement,
    Kind,
    Options,
    Severity,
    State,
    Today,
    Usual,
    advance,
    advice,
    changes,
    is_muted,
    judge_today,
    summary,
)
from app.detection.findings import MOST_OPEN, Finding
from app.detection.times import day_end, day_start, hour_end
from tests.app.detection.histories import OFFICE, Counts, at

MONDAY = 84


def spike(counts: Counts, day: int) -> Finding:
    """The finding of a spike."""
    counts.scale(day, 4)
    return advance("org", State(), counts.judged(day)[2])[1][0]


def test_spike_ends_with_a_usual_day() -> None:
    """A spike is resolved after a whole day below the bound; the id is that of its first day."""
    counts = Counts(50, 50, 50)
    for day in (MONDAY, MONDAY + 1):
        counts.scale(day, 4)
    (finding,) = counts.watched()
    assert finding.start == day_start(at(MONDAY))
    assert finding.last_seen == day_end(at(MONDAY + 1))
    assert (finding.resolution, finding.resolved_at) == ("ended", day_end(at(MONDAY + 2)))


@pytest.mark.parametrize(("gap", "number"), [(3, 1), (10, 2)])
def test_spike_comes_back(gap: int, number: int) -> None:
    """A spike within seven days after the last one's end is the same finding."""
    counts = Counts(50, 50, 50, weekend=1)
    for day in (70, 70 + gap):
        counts.scale(day, 4)
    assert len(counts.watched()) == number


def test_silence_ends_in_its_hour() -> None:
    """A silence is resolved by the hour in which the organization is back."""
    counts = Counts(100, 50)
    for agent in counts.agents:
        counts.set(agent, MONDAY, range(11, 15), 0)
    (finding,) = counts.watched()
    assert finding.resolved_at == hour_end(at(MONDAY), 15)
    assert finding.severity is Severity.CRITICAL


def test_severity_never_falls() -> None:
    """A finding that goes on keeps its highest severity."""
    counts = Counts(50, 50, 50)
    counts.scale(MONDAY, 6)
    counts.scale(MONDAY + 1, 2.2)
    (finding,) = counts.watched()
    assert finding.severity is Severity.CRITICAL


def test_whole_day_replaces_the_day_so_far() -> None:
    """A whole day gives the same state, whatever was judged of the day before its end."""
    counts = Counts(50, 50, 50)
    counts.scale(MONDAY, 4)
    series, usual, judgement = counts.judged(MONDAY)
    agents = dict.fromkeys(counts.agents, (2000, 0))
    so_far, changed = advance("org", State(), judge_today(usual, Today(series.hours[-24:], agents)))
    assert len(changed) == 1
    state, found = advance("org", State(), judgement)
    assert state != so_far or found == changed
    assert [one.what for one in changes(changed, found)] in ([], ["updated"])


def test_more_than_the_most_open() -> None:
    """Beyond twenty open findings of a kind one finding collects the others."""
    counts = Counts(1000, *[10] * 30)
    for number in range(1, 31):
        counts.scale(MONDAY, 40, f"agent-{number}")
    judgement = counts.judged(MONDAY)[2]
    loops = [one for one in judgement.candidates if one.kind == "retry_loop"]
    if not loops:  # together they are the organization's spike
        loops = [
            replace(
                judgement.candidates[0], kind="retry_loop", part="agent", agent=f"agent-{number}"
            )
            for number in range(30)
        ]
    state, changed = advance("org", State(), replace(judgement, candidates=tuple(loops)))
    more = [one for one in changed if one.part == "more"]
    assert len(changed) == MOST_OPEN + 1
    assert [one.collected for one in more] == [len(loops) - MOST_OPEN]
    assert summary(more[0], Options()).startswith(f"{len(loops) - MOST_OPEN} more findings")
    quiet = replace(judgement, day=at(MONDAY + 1), candidates=())
    assert not any(one.is_open for one in advance("org", state, quiet)[0].findings)


def test_a_correction_is_told() -> None:
    """What later counts no longer show is resolved as corrected, once."""
    finding = spike(Counts(50, 50, 50), MONDAY)
    (change,) = changes([finding], [])
    assert (change.what, change.finding.resolution) == ("corrected", "corrected")
    assert changes([change.finding], []) == ()


def test_acknowledged_stays_silent() -> None:
    """A finding that a person has closed is open again only if it becomes more severe."""
    finding = spike(Counts(50, 50, 50), MONDAY)
    assert finding.severity is Severity.WARNING
    assert is_muted(finding, Severity.WARNING)
    assert not is_muted(replace(finding, severity=Severity.CRITICAL), Severity.WARNING)
    assert not is_muted(finding, None)


def test_new_agent_is_known_after_a_week() -> None:
    """A new agent is reported once, and resolved after seven days."""
    counts = Counts(90, 50, weekend=1)
    for day in range(70, 90):
        counts.set("new", day, OFFICE, 5)
    (finding,) = counts.watched()
    assert (finding.kind, finding.resolution) == ("new_agent", "known")
    assert finding.resolved_at == day_end(at(70)) + timedelta(days=7)


def test_everything_is_json() -> None:
    """A usual, a judgement and a state come back from JSON as they were."""
    counts = Counts(50, 50, 50)
    counts.scale(MONDAY, 4)
    _, usual, judgement = counts.judged(MONDAY)
    state, _ = advance("org", State(), judgement)
    for value, kind in ((usual, Usual), (judgement, Judgement), (state, State)):
        assert msgspec.json.decode(msgspec.json.encode(value), type=kind) == value


def test_sentences() -> None:
    """A finding is one sentence with its numbers and the agent's name, and one of advice."""
    counts = Counts(50, 50, 50)
    finding = spike(counts, MONDAY)
    text = summary(finding, Options(names={"agent-0": "billing-sync"}))
    assert text.startswith("Mon 30 Mar: 6,000 tokens, usually ")
    assert text.endswith("on a whole Monday; billing-sync made 33 % of the excess.")
    assert advice(finding).endswith("See docs/insight.md#spike.")


def test_each_kind_has_its_heading() -> None:
    """The advice of each kind leads to a heading of docs/insight.md."""
    page = (ROOT / "docs/insight.md").read_text().splitlines()
    finding = spike(Counts(50, 50, 50), MONDAY)
    for kind in Kind:
        heading = advice(replace(finding, kind=kind)).partition("#")[2].rstrip(".")
        assert f"## {heading}" in page


def test_waste_has_a_price() -> None:
    """Wasted tokens say how many are avoidable, and with a price what they cost."""
    counts = Counts(100)
    for day in range(counts.days):
        counts.set("greedy", day, range(24), 60)
    (finding,) = (one for one in counts.watched() if one.kind == "token_waste")
    assert "42,480 are avoidable a month." in summary(finding, Options())
    assert "a month, 84.96 EUR." in summary(
        finding, Options(price_per_thousand=2.0, currency="EUR")
    )
