"""Judging one organization: its whole days in order, then the days that are not over.

A day is *whole* when it is over and the usual delivery delay has passed. It is judged from its
tables alone, beginning with the state after the day before. The states of the last days are kept.
So an event that arrives late costs a few days of judging. For an earlier day, judging begins with
an empty state WARM_UP_DAYS before it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Self

import msgspec
from sqlalchemy import Connection, Row

from app.detection import (
    OTHERS,
    REOPENED_DAYS,
    Finding,
    Options,
    State,
    Today,
    Usual,
    advance,
    judge_day,
    judge_today,
    usual,
)
from app.storage.database import Database
from jobs.findings.counts import DayCounts, with_others
from jobs.findings.history import DAY, History, LargeHistory, history, never_seen_before
from jobs.findings.storing import Judged

WARM_UP_DAYS = 180
# The same where an organization with a history is judged for the first time, as after an upgrade.
# It is the longest time after which a finding can come back. WARM_UP_DAYS would keep all other
# organizations waiting for hours. A recompute gives the findings of the past, and makes up for it.
FIRST_WARM_UP_DAYS = max(REOPENED_DAYS.values())
# States are kept of so many days: an event may be 48 hours late, and then change the day before.
KEPT_STATES = 4
# The days of an organization that are judged in one transaction.
SLICE_DAYS = 60
HOUR = timedelta(hours=1)

_USUALS = msgspec.json.Decoder(dict[str, Usual])
# Most of them stay as they are, so that they need not be decoded.
_STATES = msgspec.json.Decoder(dict[str, msgspec.Raw])
_STATE = msgspec.json.Decoder(State)
# States by day; those that were stored are decoded only when they are needed.
States = Mapping[str, State | msgspec.Raw]


def midnight(day: date) -> datetime:
    """The instant at which a day begins."""
    return datetime.combine(day, time(), UTC)


@dataclass
class Progress:
    """How far an organization is judged, as its row in ``usual`` has it.

    Attributes:
        through: the last whole day that was judged.
        changed_from: the first judged day whose counts have changed; ``None`` if there is none.
        delay: after which events have arrived.
        usuals: of each day after ``through``, up to the day of the last pass.
        states: after each of the last whole days.
    """

    tenant_id: str
    through: date
    changed_from: date | None
    delay: timedelta
    usuals: dict[str, Usual]
    states: States

    @classmethod
    def read(cls, row: Row[Any]) -> Self:
        """The progress in a row."""
        return cls(
            row.tenant_id,
            row.judged_through,
            row.changed_from,
            timedelta(seconds=row.delay_seconds),
            _USUALS.decode(row.usuals),
            _STATES.decode(row.states),
        )

    def state_after(self, day: date) -> State | None:
        """The state after a day; ``None`` if it is not kept."""
        found = self.states.get(day.isoformat())
        return _STATE.decode(found) if isinstance(found, msgspec.Raw) else found

    def whole_until(self, counted_at: datetime) -> date:
        """The last day that is over and delivered."""
        return (counted_at - self.delay).date() - DAY

    def open_days(self, counted_at: datetime) -> list[date]:
        """The days after ``through``, up to the present one."""
        days = (counted_at.date() - self.through).days
        return [self.through + number * DAY for number in range(1, days + 1)]

    def is_behind(self, counted_at: datetime) -> bool:
        """Whether whole days must be judged first, or the usual of a day is missing."""
        open_days = self.open_days(counted_at)
        return (
            self.changed_from is not None
            or self.through < self.whole_until(counted_at)
            or any(day.isoformat() not in self.usuals for day in open_days)
        )

    def next_due(self, counted_at: datetime) -> datetime:
        """When the next hour is over and delivered."""
        settled = counted_at - self.delay
        return settled.replace(minute=0, second=0, microsecond=0) + HOUR + self.delay

    def columns(self, counted_at: datetime) -> dict[str, Any]:
        """The progress as columns of the row."""
        behind = self.is_behind(counted_at)
        return {
            "judged_through": self.through,
            "changed_from": self.changed_from,
            "due_at": counted_at if behind else self.next_due(counted_at),
            "usuals": msgspec.json.encode(self.usuals).decode(),
            "states": states_text(self.states),
        }


def judge_open_days(
    connection: Connection,
    progress: Progress,
    counts: Mapping[date, DayCounts],
    counted_at: datetime,
) -> Judged:
    """Judge the days that are not whole, by the stored usual and their counts so far."""
    state = progress.state_after(progress.through) or State()
    found = {finding.id: finding for finding in state.findings}
    for day in progress.open_days(counted_at):
        today = _today(connection, progress, day, counts[day], counted_at)
        judgement = judge_today(progress.usuals[day.isoformat()], today)
        state, touched = advance(progress.tenant_id, state, judgement)
        found |= {finding.id: finding for finding in touched}
    after = midnight(progress.through + DAY)
    return Judged(progress.tenant_id, after, max(counted_at, after) + DAY, findings=found)


def _today(
    connection: Connection,
    progress: Progress,
    day: date,
    counts: DayCounts,
    counted_at: datetime,
) -> Today:
    bounds = progress.usuals[day.isoformat()]
    hours = counts.hours[: _hours_until(day, counted_at + HOUR)]
    settled = _hours_until(day, counted_at - progress.delay)
    unknown = [agent for agent in counts.agents if agent not in bounds.agents]
    new = never_seen_before(connection, progress.tenant_id, unknown, day)
    agents, new_others = counts.agents, 0
    if OTHERS in bounds.agents:
        agents, new, new_others = with_others(counts, unknown), [], len(new)
    return Today(hours, agents, new, new_others, settled)


def _hours_until(day: date, instant: datetime) -> int:
    """The number of hours of a day that are over at an instant."""
    return min(max(int((instant - midnight(day)) / HOUR), 0), 24)


def catch_up(  # noqa: PLR0913 - an organization, and how far it is counted
    database: Database,
    progress: Progress,
    options: Options,
    counted_at: datetime,
    began: date | None,
    *,
    keep: Callable[[], None],
) -> Judged:
    """Judge whole days, at most SLICE_DAYS, and then say what is usual on the open days.

    It changes ``progress``.

    Args:
        began: the first day that is known; ``None`` if there is none.
        keep: called before each day; it keeps the claim.
    """
    tenant_id, whole = progress.tenant_id, progress.whole_until(counted_at)
    first = progress.through + DAY
    if progress.changed_from is not None:
        first = min(progress.changed_from, first)
    if began is None or began > counted_at.date():
        began = counted_at.date()
    first = max(first, min(began, whole + DAY))
    last = min(first + (SLICE_DAYS - 1) * DAY, whole)
    state = progress.state_after(first - DAY)
    warm_up_days = WARM_UP_DAYS if progress.states else FIRST_WARM_UP_DAYS
    warm_from = first
    if state is None:
        warm_from = max(min(began, first), first - warm_up_days * DAY)
    counts = history(database, tenant_id, warm_from, counted_at.date(), began)
    state = warm_up(counts, tenant_id, options, warm_from, first, state, keep=keep)
    known = {} if progress.changed_from is not None else progress.usuals
    states = {**progress.states, (first - DAY).isoformat(): state}
    found = {finding.id: finding for finding in state.findings}
    days = judged_days(counts, tenant_id, options, first, last, state, known, keep=keep)
    for day, after, touched in days:
        found |= {finding.id: finding for finding in touched}
        states[day.isoformat()] = after
    progress.through = max(last, first - DAY)
    progress.changed_from = None
    states = {day: one for day, one in states.items() if day <= progress.through.isoformat()}
    progress.states = last_states(states)
    progress.usuals = {}
    if progress.through >= whole:
        progress.usuals = {
            day.isoformat(): usual(counts.until(day), options)
            for day in progress.open_days(counted_at)
        }
    begin, end = midnight(first), midnight(progress.through + DAY)
    return Judged(tenant_id, begin, end, findings=found)


def last_states(states: States) -> States:
    """The states that are kept, of those after some days."""
    return {day: states[day] for day in sorted(states)[-KEPT_STATES:]}


def states_text(states: States) -> str:
    """States as a column of the row."""
    return msgspec.json.encode(states).decode()


def warm_up(  # noqa: PLR0913, PLR0917 - where judging begins and ends
    counts: History | LargeHistory,
    tenant_id: str,
    options: Options,
    first: date,
    end: date,
    state: State | None = None,
    *,
    keep: Callable[[], None],
) -> State:
    """The state at the beginning of ``end``, when judging begins with ``first``."""
    state = State() if state is None else state
    for _, after, _ in judged_days(counts, tenant_id, options, first, end - DAY, state, keep=keep):
        state = after
    return state


def judged_days(  # noqa: PLR0913, PLR0917 - as above
    counts: History | LargeHistory,
    tenant_id: str,
    options: Options,
    first: date,
    last: date,
    state: State,
    known: Mapping[str, Usual] | None = None,
    *,
    keep: Callable[[], None],
) -> Iterator[tuple[date, State, tuple[Finding, ...]]]:
    """Each whole day, the state after it, and the findings that it has opened or changed.

    Args:
        state: at the beginning of the first day.
        known: what is usual on some of the days, so that it need not be computed.
        keep: called before each day; it keeps the claim.
    """
    day = first
    while day <= last:
        keep()
        series = counts.until(day)
        bounds = (known or {}).get(day.isoformat())
        # Which agents are the others is known only at the end of the day.
        if bounds is None or OTHERS in series.agents:
            bounds = usual(series, options)
        judgement = judge_day(series, bounds, options)
        state, touched = advance(tenant_id, state, judgement)
        yield day, state, touched
        day += DAY
