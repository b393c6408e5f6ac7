"""Scoring: which findings meet a label, which labels are found, and which findings are false."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from app.detection import Finding, Kind, Part, Severity
from tests.insight.organizations import DAYS, JUDGED, WARM_UP, Label, Organization

MONTH = 30.4

# The labels that a kind of finding may be about.
_MEETS = {
    Kind.SPIKE: ("spike", "burst", "loop", "leak", "own leak", "level up", "arrival"),
    Kind.RETRY_LOOP: ("loop", "spike", "burst", "leak", "own leak", "level up", "arrival"),
    Kind.SILENCE: ("outage", "agent pause", "agent stop", "level down"),
    Kind.UNUSUAL_HOUR: ("leak", "own leak", "loop", "spike", "burst"),
    Kind.LEVEL_SHIFT: ("level up", "level down", "arrival", "agent stop", "outage"),
}
# The findings that find a label.
_FINDS = {
    "spike": (Kind.SPIKE, Kind.RETRY_LOOP),
    "burst": (Kind.SPIKE, Kind.RETRY_LOOP),
    "loop": (Kind.RETRY_LOOP, Kind.SPIKE),
    "outage": (Kind.SILENCE,),
    "agent pause": (Kind.SILENCE,),
    "agent stop": (Kind.SILENCE,),
    "leak": (Kind.UNUSUAL_HOUR,),
    "own leak": (Kind.UNUSUAL_HOUR,),
    "level up": (Kind.LEVEL_SHIFT,),
    "level down": (Kind.LEVEL_SHIFT,),
}
SIZES = (10, 100, 1000, 10_000, 100_000)


@dataclass
class Score:
    """What was found, summed over organizations.

    ``labels`` and ``found`` are counted by ``(kind, size)``, ``met`` and ``false`` by kind of
    finding. ``delays`` are hours from the label's start to ``opened_at``.
    """

    months: float = 0.0
    clean_months: Counter[int] = field(default_factory=Counter)
    labels: Counter[tuple[str, float]] = field(default_factory=Counter)
    found: Counter[tuple[str, float]] = field(default_factory=Counter)
    met: Counter[Kind] = field(default_factory=Counter)
    false: Counter[Kind] = field(default_factory=Counter)
    false_clean: Counter[tuple[Kind, int]] = field(default_factory=Counter)
    holidays: int = 0
    days_off: int = 0
    delays: dict[tuple[str, float], list[float]] = field(default_factory=dict)
    exact: Counter[tuple[Kind, str]] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def add(self, organization: Organization, findings: list[Finding]) -> None:
        """Add an organization and its findings."""
        self.months += JUDGED / MONTH
        size = _size(organization.daily)
        if organization.is_clean:
            self.clean_months[size] += 1
        told = [one for one in findings if _is_told(one)]
        labels = [label for label in organization.labels if label.end > WARM_UP * 24]
        for label in labels:
            # A burst is found if it is listed. It is sent once the day is 2.5 times the usual.
            self._add_label(organization, label, findings if label.kind == "burst" else told)
        for finding in told:
            if finding.kind not in _MEETS:
                continue
            if any(_meets(organization, finding, label) for label in labels):
                self.met[finding.kind] += 1
            elif finding.kind is Kind.SILENCE and _is_holiday(organization, finding):
                self.holidays += organization.is_clean
                self.days_off += organization.is_clean and finding.detail == "day off"
            elif finding.kind is Kind.LEVEL_SHIFT and _is_holiday(organization, finding):
                self.holidays += organization.is_clean
            else:
                self._add_false(organization, finding, size)
        self._add_exact(organization, findings)

    def _add_false(self, organization: Organization, finding: Finding, size: int) -> None:
        self.false[finding.kind] += 1
        if organization.is_clean:
            self.false_clean[finding.kind, size] += 1
        if len(self.examples) < 400:
            self.examples.append(
                f"{organization.name} {organization.daily:.0f}/day {finding.kind}"
                f" {finding.part} {finding.agent} {finding.detail} {finding.severity}"
                f" {finding.start:%a %Y-%m-%d %H} to {finding.end:%m-%d %H}"
                f" {finding.observed} {finding.usual}"
            )

    def _add_label(self, organization: Organization, label: Label, told: list[Finding]) -> None:
        if not is_large(organization, label):
            return
        key = label.kind, 0 if label.kind in ("leak", "own leak") else label.size
        self.labels[key] += 1
        start = _moment(organization, label.start)
        hits = finders(organization, label, told)
        if hits:
            self.found[key] += 1
            first = min(finding.opened_at for finding in hits)
            delay = max((first - start) / timedelta(hours=1), 0.0)
            self.delays.setdefault(key, []).append(delay)

    def _add_exact(self, organization: Organization, findings: list[Finding]) -> None:
        """Compare the kinds that are exact with a plain recount."""
        for kind, wanted in recount(organization).items():
            got = Counter(
                finding.agent
                for finding in findings
                if finding.kind is kind and finding.part is Part.AGENT
            )
            self.exact[kind, "wanted"] += len(wanted)
            self.exact[kind, "found"] += len(wanted & set(got))
            self.exact[kind, "wrong"] += len(set(got) - wanted)


def recount(organization: Organization) -> dict[Kind, set[str]]:
    """The agents that are new, dormant or concentrated, counted in the plainest way."""
    days = {
        agent: [sum(hours[at : at + 24]) for at in range(0, DAYS * 24, 24)]
        for agent, hours in organization.agents.items()
    }
    firsts = [_first(counts) for counts in days.values()]
    began = min(firsts)
    by_day = Counter(firsts)
    new = {
        agent
        for agent, counts in days.items()
        if max(WARM_UP, began + 14) <= _first(counts) < DAYS and by_day[_first(counts)] <= 5
    }
    dormant = {
        agent
        for agent, counts in days.items()
        if any(
            not any(counts[day - 29 : day + 1])
            and counts[day - 30]
            and sum(map(bool, counts[:day])) >= 30
            for day in range(WARM_UP, DAYS)
        )
    }
    concentrated = set()
    for day in range(WARM_UP, DAYS):
        of_month = min(organization.day(day).day, day + 1 - began)
        if of_month < 7:
            continue
        month = {agent: sum(counts[day + 1 - of_month : day + 1]) for agent, counts in days.items()}
        total = sum(month.values())
        if total >= 100 and sum(map(bool, month.values())) >= 2:
            concentrated |= {agent for agent, count in month.items() if count > 0.8 * total}
    return {
        Kind.NEW_AGENT: new,
        Kind.DORMANT_AGENT: dormant,
        Kind.CONCENTRATION: concentrated,
    }


def _first(counts: list[int]) -> int:
    return next((day for day, count in enumerate(counts) if count), DAYS)


def _size(daily: float) -> int:
    return sum(daily >= limit for limit in SIZES)


def _is_told(finding: Finding) -> bool:
    """Whether a finding is sent: a spike from 2.5 times the usual."""
    return finding.kind is not Kind.SPIKE or finding.severity is not Severity.INFO


def finders(organization: Organization, label: Label, findings: Iterable[Finding]) -> list[Finding]:
    """The findings that find a label."""
    return [
        finding
        for finding in findings
        if finding.kind in _FINDS[label.kind] and _meets(organization, finding, label)
    ]


def is_large(organization: Organization, label: Label) -> bool:
    """Whether a label is large enough that it should be found."""
    if label.kind not in _FINDS:
        return False
    if label.kind in ("leak", "own leak"):
        return label.size >= 10 and organization.daily >= 100
    if label.kind in ("level up", "level down"):
        return organization.daily >= 100
    return label.effect >= (30 if label.kind.startswith("agent") else 100)


def _moment(organization: Organization, hour: int) -> datetime:
    first = organization.first
    midnight = datetime(first.year, first.month, first.day, tzinfo=UTC)
    return midnight + timedelta(hours=hour)


def _meets(organization: Organization, finding: Finding, label: Label) -> bool:
    """Whether a finding may be about a label: by its kind, its time and its agent."""
    if label.kind not in _MEETS[finding.kind]:
        return False
    is_of_agent = finding.part is Part.AGENT and finding.kind is Kind.SILENCE and label.agent
    if is_of_agent and finding.agent != label.agent:
        return False
    start, end = _moment(organization, label.start), _moment(organization, label.end)
    if label.kind in ("level up", "level down") or finding.kind is Kind.LEVEL_SHIFT:
        end = max(end, start + timedelta(days=21))
    return finding.start < end + timedelta(hours=1) and finding.end > start


def _is_holiday(organization: Organization, finding: Finding) -> bool:
    """Whether a holiday or the Christmas lull explains a finding, up to three weeks later."""
    day = finding.start.date() - timedelta(days=1)
    last = finding.end.date() + timedelta(days=1)
    while day <= last:
        if organization.place.factor(day) < 1:
            return True
        day += timedelta(days=1)
    return False


def quantiles(values: list[float]) -> tuple[float, float]:
    """The median and the 90 % quantile."""
    values = sorted(values)
    return values[len(values) // 2], values[(9 * len(values)) // 10]
