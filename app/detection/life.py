"""The life of findings: opened, updated, resolved, reopened, collected."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from operator import add, attrgetter

from app.detection.findings import (
    MOST_OPEN,
    Candidate,
    Finding,
    Judgement,
    Key,
    Kind,
    Part,
    Range,
    Severity,
    finding_id,
)
from app.detection.times import day_end, day_start

# A kind that comes back within so many days after its end is the same finding.
REOPENED_DAYS = {
    Kind.SPIKE: 7,
    Kind.RETRY_LOOP: 7,
    Kind.SILENCE: 1,
    Kind.UNUSUAL_HOUR: 28,
    Kind.LEVEL_SHIFT: 14,
    Kind.TOKEN_WASTE: 7,
}
SHIFT_DAYS = 14  # a new level is usual after them
# A finding of these kinds is resolved when so many days have passed since it was last seen; a level
# shift, since it was opened.
LASTING_DAYS = {Kind.UNUSUAL_HOUR: 1, Kind.NEW_AGENT: 7, Kind.LEVEL_SHIFT: SHIFT_DAYS}
_GONE_DAYS = 30  # an agent's silence is no news any more; it is dormant
_BACK = 0.3
_CONCENTRATED = 0.7
# A new level explains a spike, or a drop.
_EXPLAINED = {"up": Kind.SPIKE, "down": Kind.SILENCE}
_KEPT_DAYS = max(REOPENED_DAYS.values())


@dataclass(frozen=True, slots=True)
class State:
    """The findings of one organization that a later day can still change.

    These are the open ones, and those that were resolved not long ago.
    """

    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """A finding that must be stored.

    ``what`` is ``"opened"``, ``"updated"``, ``"resolved"``, ``"reopened"`` or ``"corrected"``.
    """

    what: str
    finding: Finding


def advance(
    tenant_id: str, state: State, judgement: Judgement
) -> tuple[State, tuple[Finding, ...]]:
    """The state after a day, and the findings that the day has opened or changed.

    Args:
        state: the state at the beginning of the judged day.
        judgement: of the whole day, or of the day so far.
    """
    day = _Day(tenant_id, state, judgement)
    for candidate in judgement.candidates:
        day.take(candidate)
    if judgement.whole:
        day.resolve()
    elif judgement.recovered:
        day.resolve_silence()
    before = {one.id: one for one in state.findings}
    findings = sorted(day.findings.values(), key=attrgetter("opened_at", "id"))
    changed = tuple(one for one in findings if before.get(one.id) != one)
    oldest = day_start(judgement.day) - timedelta(days=_KEPT_DAYS)
    kept = (one for one in findings if one.resolved_at is None or one.resolved_at >= oldest)
    return State(tuple(kept)), changed


class _Day:
    """The findings of an organization during one day, by id."""

    def __init__(self, tenant_id: str, state: State, judgement: Judgement) -> None:
        self._tenant_id = tenant_id
        self._judgement = judgement
        self._seen: set[Key] = set()
        self._collected: set[Kind] = set()
        self.findings = {one.id: one for one in state.findings}
        self._open = {one.key: one for one in state.findings if one.is_open}

    def take(self, candidate: Candidate) -> None:
        """Let a candidate open, update or reopen a finding."""
        key = candidate.key
        self._seen.add(key)
        if self._is_told_already(candidate):
            return
        if candidate.kind is Kind.SILENCE and candidate.part is Part.ORGANIZATION:
            self.resolve_silence(until=candidate.opened_at)
        if key in self._open:
            self._store(_updated(self._open[key], candidate))
        elif (recent := self._recent(candidate)) is not None:
            again = _updated(recent, candidate)
            self._store(replace(again, resolved_at=None, resolution=None))
        elif self._is_full(candidate.kind):
            self._collect(candidate)
        else:
            self._store(_opened(self._tenant_id, candidate))
        if candidate.kind is Kind.LEVEL_SHIFT:
            old = self._open.get((_EXPLAINED[candidate.detail], Part.ORGANIZATION, ""))
            if old is not None and _is_of_level(old.kind, old.detail):
                self._close(old, candidate.opened_at, "new level")

    def _recent(self, candidate: Candidate) -> Finding | None:
        """The finding that a candidate continues, although it was resolved."""
        days = timedelta(days=REOPENED_DAYS.get(candidate.kind, 0))
        same = [
            one
            for one in self.findings.values()
            if one.key == candidate.key
            and one.resolved_at is not None
            and one.resolution != "new level"
            and candidate.opened_at - one.resolved_at <= days
        ]
        # A second one on the same day would have the same id.
        own = self.findings.get(finding_id(self._tenant_id, candidate.key, candidate.start))
        return max(same, key=attrgetter("resolved_at", "id"), default=own)

    def _is_told_already(self, candidate: Candidate) -> bool:
        """Whether an open finding of another key, or one of the last days, explains a candidate."""
        if candidate.key in self._open:
            return False
        day = day_start(self._judgement.day)
        others = self.findings.values()
        if candidate.kind is Kind.SILENCE and candidate.part is Part.AGENT:
            return any(
                one.kind is Kind.SILENCE
                and one.part is Part.SEVERAL
                and one.start == candidate.start
                for one in others
            )
        return _is_of_level(candidate.kind, candidate.detail) and any(
            one.kind is Kind.LEVEL_SHIFT
            and _EXPLAINED[one.detail] is candidate.kind
            and day - one.opened_at <= timedelta(days=SHIFT_DAYS)
            for one in others
        )

    def _is_full(self, kind: Kind) -> bool:
        alike = [key for key in self._open if key[0] is kind and key[1] is not Part.MORE]
        return len(alike) >= MOST_OPEN

    def _collect(self, candidate: Candidate) -> None:
        """Let one finding stand for those of a kind beyond the most that are open."""
        more = replace(candidate, part=Part.MORE, agent="", detail=candidate.detail, collected=1)
        found = self._open.get(more.key)
        self._seen.add(more.key)
        if found is None:
            self._store(_opened(self._tenant_id, more))
        elif candidate.kind in self._collected:
            # The first of the day stands for all: its numbers stay.
            self._store(replace(found, collected=found.collected + 1))
        else:
            self._store(_updated(found, more))
        self._collected.add(candidate.kind)

    def resolve_silence(self, until: datetime | None = None) -> None:
        """Resolve the organization's silence at the first hour in which it was back."""
        found = self._open.get((Kind.SILENCE, Part.ORGANIZATION, ""))
        if found is None:
            return
        for back in self._judgement.recovered:
            if back > found.end and (until is None or back < until):
                self._close(found, back, "ended")
                return

    def resolve(self) -> None:
        """Resolve what the whole day no longer shows."""
        self.resolve_silence()
        end = day_end(self._judgement.day)
        for found in sorted(self._open.values(), key=attrgetter("id")):
            resolution = self._resolution(found, end)
            if resolution:
                self._close(found, end, resolution)

    def _resolution(self, found: Finding, end: datetime) -> str:
        """Why a finding is over at the end of the day; empty if it is not."""
        if found.key in self._seen:
            return ""
        if found.kind in LASTING_DAYS:
            since = found.opened_at if found.kind is Kind.LEVEL_SHIFT else found.last_seen
            days = timedelta(days=LASTING_DAYS[found.kind])
            return "known" if end - since >= days else ""
        if found.kind is Kind.SILENCE and found.part is not Part.MORE:
            return self._end_of_silence(found, end)
        return "" if self._goes_on(found) else "ended"

    def _goes_on(self, found: Finding) -> bool:
        """Whether a finding that no candidate has seen today is still true."""
        if found.part is Part.MORE:
            return False
        if found.kind is Kind.DORMANT_AGENT:
            return not self._judgement.counts.get(found.agent)
        shares = self._judgement.shares
        return found.kind is Kind.CONCENTRATION and (
            not shares or shares.get(found.agent, 0.0) >= _CONCENTRATED
        )

    def _end_of_silence(self, found: Finding, end: datetime) -> str:
        if found.part is Part.ORGANIZATION:
            return ""
        agents = [one.agent_id for one in found.agents]
        usual = sum(one.usual for one in found.agents)
        count = sum(self._judgement.counts.get(agent, 0) for agent in agents)
        days = max((found.end - found.start) // timedelta(days=1), 1)
        if count and count >= _BACK * usual / days:
            return "ended"
        return "known" if end - found.last_seen >= timedelta(days=_GONE_DAYS) else ""

    def _store(self, found: Finding) -> None:
        self.findings[found.id] = found
        if found.is_open:
            self._open[found.key] = found
        else:
            self._open.pop(found.key, None)

    def _close(self, found: Finding, at: datetime, resolution: str) -> None:
        self._store(replace(found, resolved_at=at, resolution=resolution))


def _is_of_level(kind: Kind, detail: str) -> bool:
    """Whether a new level can explain a finding of an organization."""
    return kind is Kind.SPIKE or (kind is Kind.SILENCE and detail == "dropped")


def _opened(tenant_id: str, candidate: Candidate) -> Finding:
    return Finding(
        finding_id(tenant_id, candidate.key, candidate.start),
        *candidate.key,
        candidate.severity,
        opened_at=candidate.opened_at,
        start=candidate.start,
        end=candidate.end,
        last_seen=candidate.end,
        observed=candidate.observed,
        usual=candidate.usual,
        agents=candidate.agents,
        detail=candidate.detail,
        collected=candidate.collected,
    )


def _updated(found: Finding, candidate: Candidate) -> Finding:
    """A finding with later numbers; its severity never falls, and its beginning stays."""
    observed, usual = candidate.observed, candidate.usual
    if candidate.kind is Kind.SILENCE and candidate.part is Part.ORGANIZATION and found.is_open:
        # A silence of several days has the tokens, and the usual tokens, of all of them.
        if candidate.start > found.start:
            observed += found.observed
        if usual and found.usual:
            usual = Range(*map(add, _numbers(usual), _numbers(found.usual)))
    return replace(
        found,
        severity=max(found.severity, candidate.severity, key=lambda one: one.rank),
        end=max(found.end, candidate.end),
        last_seen=max(found.last_seen, candidate.end),
        observed=observed,
        usual=usual,
        agents=candidate.agents,
        detail=candidate.detail,
        collected=candidate.collected,
    )


def _numbers(usual: Range) -> tuple[int, int, int]:
    return usual.low, usual.typical, usual.high


def changes(stored: Iterable[Finding], now: Iterable[Finding]) -> tuple[Change, ...]:
    """What must be stored: ``now`` replaces ``stored``, and one that is missing is corrected.

    Args:
        stored: the findings of the days that were judged anew.
        now: the findings of these days, as they should be.
    """
    before = {one.id: one for one in stored}
    found = []
    for one in now:
        old = before.pop(one.id, None)
        if old is None:
            found.append(Change("opened", one))
        elif old != one:
            found.append(Change(_difference(old, one), one))
    for old in before.values():
        if old.resolution != "corrected":
            at = old.resolved_at or old.last_seen
            corrected = replace(old, resolved_at=at, resolution="corrected")
            found.append(Change("corrected", corrected))
    return tuple(found)


def _difference(old: Finding, new: Finding) -> str:
    if old.is_open and not new.is_open:
        return "resolved"
    return "reopened" if new.is_open and not old.is_open else "updated"


def is_muted(finding: Finding, acknowledged: Severity | None) -> bool:
    """Whether a person has closed the finding, at the severity that it had then.

    It is shown as resolved, and stays so while it lasts or comes back within its own time. It is
    open again when it becomes more severe.
    """
    return acknowledged is not None and finding.severity.rank <= acknowledged.rank
