"""Rules of detection on plain histories: each finds its own, and nothing else."""

from datetime import UTC, datetime, timedelta

import pytest

from app.detection import OTHERS, Options, Today, bounds, judge_today, merge_smallest
from app.detection.times import day_end, day_start, hour_end
from tests.app.detection.histories import FIRST, OFFICE, OPTIONS, Counts, at

MONDAY = 84
SATURDAY = 89
NOTHING: list[tuple[str, str, str]] = []


def test_steady_counts_show_nothing() -> None:
    """An organization that is the same each week has no finding, from its first day on."""
    assert Counts(100, 50, 20).watched() == []


@pytest.mark.parametrize(("factor", "severity"), [(2.2, "info"), (3, "warning"), (6, "critical")])
def test_day_spike(factor: float, severity: str) -> None:
    """A day with more tokens of all agents is a spike, as severe as its factor."""
    counts = Counts(50, 50, 50)
    counts.scale(MONDAY, factor)
    assert counts.found(MONDAY) == [("spike", "", severity)]


def test_spike_is_opened_in_its_hour() -> None:
    """A spike is opened at the end of the first hour whose total is beyond the bound."""
    counts = Counts(50, 50, 50)
    counts.scale(MONDAY, 2.6)
    (_, usual, judgement) = counts.judged(MONDAY)
    (spike,) = judgement.candidates
    # 390 tokens an hour from 08:00 on, so that no three hours are a burst.
    hours = -(-usual.spike // 390)
    assert spike.opened_at == day_start(at(MONDAY)) + timedelta(hours=8 + hours)
    assert (spike.start, spike.end) == (day_start(at(MONDAY)), day_end(at(MONDAY)))
    assert spike.usual is not None
    assert (spike.observed, spike.usual.typical) == (3900, 1500)
    assert [one.share for one in spike.agents] == pytest.approx([1 / 3] * 3, abs=0.001)


def test_so_far_and_whole_day_agree() -> None:
    """A spike that is seen during the day is opened at the same hour as by the whole day."""
    counts = Counts(50, 50, 50)
    counts.scale(MONDAY, 3)
    series, usual, judgement = counts.judged(MONDAY)
    hours = series.hours[-24:]
    opened = set()
    for through in range(1, 25):
        agents = {
            agent: (sum(issued[MONDAY * 24 : MONDAY * 24 + through]), 0)
            for agent, issued in counts.agents.items()
        }
        found = judge_today(usual, Today(hours[:through], agents)).candidates
        opened |= {one.opened_at for one in found}
    assert opened == {judgement.candidates[0].opened_at}


def test_steady_rise_of_one_kind_of_day() -> None:
    """Days of a weekday that is always high are no spikes."""
    counts = Counts(50, 50)
    for day in range(0, 90, 7):
        counts.scale(day, 5)
    assert counts.found(MONDAY) == NOTHING


def test_same_day_of_each_month() -> None:
    """A day of the month that is always high is no spike: here the last one."""
    counts = Counts(50, 50, days=120)
    for date in ((2026, 1, 31), (2026, 2, 28), (2026, 3, 31), (2026, 4, 30)):
        day = (datetime(*date, tzinfo=UTC).date() - FIRST).days
        for agent in counts.agents:
            counts.set(agent, day, OFFICE, 400)
    april_30 = 115
    assert at(april_30).isoformat() == "2026-04-30"
    assert "spike" not in {kind for kind, _, _ in counts.found(april_30)}


def test_burst() -> None:
    """Many tokens in few hours are a spike, even if the day has fewer than twice the usual."""
    counts = Counts(50, 50)
    counts.set("agent-0", MONDAY, range(9, 11), 250)
    counts.set("agent-1", MONDAY, range(9, 11), 250)
    (spike,) = counts.judged(MONDAY)[2].candidates
    assert (spike.kind, spike.detail, spike.severity) == ("spike", "burst", "info")
    assert (spike.opened_at, spike.observed) == (hour_end(at(MONDAY), 10), 1100)


def test_retry_loop() -> None:
    """An agent with ten times its tokens is a retry loop, and told instead of the spike."""
    counts = Counts(100, 10, 10)
    counts.scale(MONDAY, 30, "agent-1")
    assert counts.found(MONDAY) == [("retry_loop", "agent-1", "critical")]
    (loop,) = counts.judged(MONDAY)[2].candidates
    assert loop.opened_at == day_end(at(MONDAY))
    assert loop.agents[0].share == 1.0


def test_loop_of_a_small_agent() -> None:
    """A retry loop is seen where the organization's day is usual."""
    counts = Counts(1000, 10)
    counts.scale(MONDAY, 20, "agent-1")
    assert ("retry_loop", "agent-1", "critical") in counts.found(MONDAY)


def test_all_agents_are_no_loop() -> None:
    """If the other agents rise as well, it is a spike, even if one makes most of the excess."""
    counts = Counts(250, 50, 50)
    counts.scale(MONDAY, 6)
    assert counts.found(MONDAY) == [("spike", "", "critical")]


def test_silence_of_an_organization() -> None:
    """No token in an hour that should have many is a silence, which grows critical."""
    counts = Counts(100, 50)
    for agent in counts.agents:
        counts.set(agent, MONDAY, range(11, 24), 0)
    (silence,) = counts.judged(MONDAY)[2].candidates
    assert (silence.kind, silence.agent, silence.severity) == ("silence", "", "critical")
    assert silence.opened_at == hour_end(at(MONDAY), 12)
    assert silence.start == hour_end(at(MONDAY), 10)


def test_silence_is_found_by_the_hour() -> None:
    """At the end of each settled hour a silence is judged as on the whole day."""
    counts = Counts(100, 50)
    for agent in counts.agents:
        counts.set(agent, MONDAY, range(11, 15), 0)
    series, usual, judgement = counts.judged(MONDAY)
    hours = series.hours[-24:]
    opened, recovered = set(), set()
    for settled in range(25):
        so_far = judge_today(usual, Today(hours[: settled + 1], settled=settled))
        opened |= {one.opened_at for one in so_far.candidates}
        recovered |= set(so_far.recovered)
    assert opened == {judgement.candidates[0].opened_at}
    assert recovered == set(judgement.recovered)


def test_drop_of_an_organization() -> None:
    """A fifth of the usual tokens, where the usual ones are steady, is a drop."""
    counts = Counts(500, 50)
    for hour in range(11, 18):
        counts.set("agent-0", MONDAY, range(hour, hour + 1), 50)
    (silence,) = (one for one in counts.judged(MONDAY)[2].candidates if not one.agent)
    assert (silence.kind, silence.detail, silence.severity) == ("silence", "dropped", "warning")


def test_silence_in_quiet_hours() -> None:
    """Two hours without tokens are a silence, also in a night with little of the day's work."""
    counts = Counts(1000)
    for day in range(counts.days):
        counts.set("steady", day, range(24), 60)
    counts.set("steady", MONDAY, range(2, 4), 0)
    silences = [one for one in counts.judged(MONDAY)[2].candidates if not one.agent]
    assert [(one.kind, one.opened_at) for one in silences] == [("silence", hour_end(at(MONDAY), 3))]


def test_silence_where_one_weekday_differs() -> None:
    """A weekday on which the hours are quiet does not hide a silence on the others."""
    counts = Counts(100)
    for day in range(counts.days):
        if day % 7 == 1:
            counts.set("agent-0", day, range(8, 13), 0)
            counts.set("agent-0", day, range(13, 18), 200)
    counts.set("agent-0", MONDAY, range(9, 13), 0)
    assert ("silence", "", "critical") in counts.found(MONDAY)


def test_outage_over_midnight_is_no_day_off() -> None:
    """A silence that began in the middle of a day's work is no day off on the next one."""
    counts = Counts(100, 50)
    counts.set("agent-0", MONDAY, range(11, 24), 0)
    counts.set("agent-1", MONDAY, range(11, 24), 0)
    counts.scale(MONDAY + 1, 0)
    (silence,) = [one for one in counts.judged(MONDAY + 1)[2].candidates if not one.agent]
    assert (silence.detail, silence.severity) == ("silent", "critical")


def test_day_off() -> None:
    """A silence that begins before work, and is like a Sunday, is info; a known day off is none."""
    counts = Counts(100, 50, weekend=0.1)
    counts.scale(MONDAY, 0.1)
    assert [one for one in counts.found(MONDAY) if not one[1]] == [("silence", "", "info")]
    assert counts.found(MONDAY, Options(days_off=frozenset({at(MONDAY)}))) == NOTHING


def test_work_on_a_day_off_is_a_spike() -> None:
    """A day off is judged as a Sunday, so that a working day there is unusual."""
    counts = Counts(100, 50, weekend=0.1)
    options = Options(days_off=frozenset({at(MONDAY)}))
    assert ("spike", "", "critical") in counts.found(MONDAY, options)


def test_silence_of_an_agent() -> None:
    """An agent that is always there on a weekday, and not today, is silent at the day's end."""
    counts = Counts(100, 20, 20, 20, 20)
    counts.scale(MONDAY, 0, "agent-1")
    (silence,) = counts.judged(MONDAY)[2].candidates
    assert (silence.kind, silence.agent, silence.severity) == ("silence", "agent-1", "warning")
    assert (silence.start, silence.opened_at) == (day_start(at(MONDAY)), day_end(at(MONDAY)))


def test_silence_of_many_agents() -> None:
    """Half of the agents at once are one finding of the organization, on each of its days."""
    counts = Counts(90, 20, 20, 20, 20)
    for day in (MONDAY, MONDAY + 1, MONDAY + 2):
        for agent in ("agent-1", "agent-2", "agent-3"):
            counts.scale(day, 0, agent)
    (finding,) = counts.watched()
    assert (finding.kind, finding.part, finding.collected) == ("silence", "several", 3)
    assert (finding.resolution, finding.resolved_at) == ("ended", day_end(at(MONDAY + 3)))


def test_agents_are_silent_with_their_organization() -> None:
    """While an organization is silent, its agents are not told one by one."""
    counts = Counts(100, 50, 50)
    counts.scale(MONDAY, 0)
    assert {one[1] for one in counts.found(MONDAY)} == {""}


def test_unusual_hour() -> None:
    """Tokens at night, where the organization never had one, are critical for a regular agent."""
    counts = Counts(100, 50)
    counts.set("agent-1", MONDAY, range(2, 3), 7)
    (one,) = counts.judged(MONDAY)[2].candidates
    assert (one.kind, one.agent, one.severity) == ("unusual_hour", "agent-1", "critical")
    assert (one.opened_at, one.observed) == (hour_end(at(MONDAY), 2), 7)


def test_agent_of_last_week_has_no_habits() -> None:
    """An agent that is not known for three weeks is no regular one: its night is info."""
    counts = Counts(100, 50)
    for day in range(MONDAY - 5, MONDAY + 1):
        counts.set("young", day, range(9, 10), 1)
    counts.set("young", MONDAY, range(2, 3), 7)
    assert ("unusual_hour", "young", "info") in counts.found(MONDAY)


def test_own_unusual_hour() -> None:
    """An hour that others use around the clock is unusual for an agent of office hours."""
    counts = Counts(100, 50)
    for day in range(counts.days):
        counts.set("service", day, range(24), 40)
    counts.set("agent-1", MONDAY, range(2, 3), 7)
    (one,) = counts.judged(MONDAY)[2].candidates
    assert (one.kind, one.agent, one.detail) == ("unusual_hour", "agent-1", "own hours")
    assert one.opened_at == hour_end(at(MONDAY), 2)


def test_new_agent() -> None:
    """A first token ever is info, and a warning in hours that are always empty."""
    counts = Counts(100, 50)
    counts.set("by-day", MONDAY, range(9, 10), 5)
    counts.set("by-night", MONDAY, range(2, 3), 5)
    assert counts.found(MONDAY) == [
        ("new_agent", "by-day", "info"),
        ("new_agent", "by-night", "warning"),
    ]


def test_many_new_agents() -> None:
    """More than five new agents on a day are one finding."""
    counts = Counts(100, 50)
    for number in range(6):
        counts.set(f"new-{number}", MONDAY, range(9, 10), 1)
    (one,) = counts.judged(MONDAY)[2].candidates
    assert (one.kind, one.part, one.collected) == ("new_agent", "several", 6)


def test_dormant_agent() -> None:
    """An agent with 30 active days is dormant after 30 days without a token, and not before."""
    counts = Counts(100, 50)
    for day in range(60):
        counts.set("old", day, range(9, 10), 1)
    assert ("dormant_agent", "old", "info") not in counts.found(88)
    assert ("dormant_agent", "old", "info") in counts.found(89)


def test_concentration() -> None:
    """One agent with more than 80 % of a month is reported once, from its seventh day on.

    Of the month in which the organization began, only the days since then count.
    """
    counts = Counts(900, 100)
    (one,) = counts.watched()
    assert (one.kind, one.agent, one.is_open) == ("concentration", "agent-0", True)
    assert one.opened_at == day_end(at(6))  # it began on 5 January
    (one,) = counts.watched(days=range(27, counts.days))  # 1 February
    assert one.opened_at == day_end(at(33))


def test_token_waste() -> None:
    """An agent with ten times the tokens that it needs, on seven whole days, wastes them."""
    counts = Counts(100)
    for day in range(counts.days):
        counts.set("greedy", day, range(24), 60)
    assert ("token_waste", "greedy", "info") in counts.found(MONDAY)
    short = Options(token_lifetimes={"greedy": 60})
    assert ("token_waste", "greedy", "info") not in counts.found(MONDAY, short)


def test_level_shift() -> None:
    """Twice the tokens for a week are a new level; the spikes of its first days end as one."""
    counts = Counts(50, 50, days=120)
    for day in range(84, 120):
        counts.scale(day, 3)
    spike, shift = counts.watched()
    assert (shift.kind, shift.detail, shift.resolution) == ("level_shift", "up", "known")
    assert (spike.kind, spike.resolution) == ("spike", "new level")
    assert spike.resolved_at == shift.opened_at


def test_two_weeks_are_too_few() -> None:
    """With two known weekdays nothing is usual, and no count is unusual."""
    counts = Counts(100, 50, days=21)
    counts.scale(14, 10)
    counts.scale(15, 0)
    assert counts.found(14) == counts.found(15) == NOTHING


def test_few_tokens_show_nothing() -> None:
    """Below twenty tokens of effect nothing is reported."""
    counts = Counts(0)
    for day in range(counts.days):
        counts.set("agent-0", day, range(9, 14), 1)
    counts.scale(MONDAY, 3)
    counts.scale(MONDAY + 1, 0)
    assert counts.found(MONDAY) == counts.found(MONDAY + 1) == NOTHING


def test_smallest_agents_are_merged() -> None:
    """Beyond the largest agents the rest is one, which has no finding of its own."""
    counts = Counts(100, *[10] * 30)
    series = counts.judged(MONDAY)[0]
    merged = merge_smallest(series, 10)
    assert len(merged.agents) == 11
    assert merged.agents[OTHERS].issued[-1] == 21 * 100
    assert sum(one.issued[-1] for one in merged.agents.values()) == series.days[-1]


def test_day_so_far_is_merged_alike() -> None:
    """During the day, agents that are not among the largest count as the others."""
    counts = Counts(100, *[10] * 30)
    usual = bounds.usual(merge_smallest(counts.judged(MONDAY)[0], 10), OPTIONS)
    agents = {agent: (sum(issued[-144:-120]), 0) for agent, issued in counts.agents.items()}
    judgement = judge_today(usual, Today([0] * 8 + [400] * 10, agents))
    assert judgement.counts[OTHERS] == 21 * 100
    assert judgement.candidates == ()
