"""Findings: what is unusual in one organization, and the types that carry it.

A *candidate* is what the rules see on one day. A *finding* has a life: it is opened by a candidate,
updated by later ones, and resolved.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import StrEnum
from hashlib import sha256


class Kind(StrEnum):
    """The kinds of findings."""

    SPIKE = "spike"
    RETRY_LOOP = "retry_loop"
    SILENCE = "silence"
    UNUSUAL_HOUR = "unusual_hour"
    LEVEL_SHIFT = "level_shift"
    CONCENTRATION = "concentration"
    NEW_AGENT = "new_agent"
    DORMANT_AGENT = "dormant_agent"
    TOKEN_WASTE = "token_waste"  # noqa: S105  # nosec B105  # the name of a kind
    BUDGET = "budget"


class Severity(StrEnum):
    """How much a finding matters."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for info, 2 for critical."""
        return ("info", "warning", "critical").index(self.value)


class Part(StrEnum):
    """The share of an organization that a finding is about, and a part of the finding's key."""

    ORGANIZATION = "organization"
    AGENT = "agent"
    # Several agents at once: scope organization.
    SEVERAL = "several"
    # The findings beyond MOST_OPEN of a kind: scope organization.
    MORE = "more"


@dataclass(frozen=True, slots=True)
class Range:
    """The usual tokens: ``low`` to ``high``, and ``typical`` between them."""

    low: int
    typical: int
    high: int


@dataclass(frozen=True, slots=True)
class Share:
    """An agent that explains a finding; ``share`` is its part of the excess or loss, 0 to 1."""

    agent_id: str
    observed: int
    usual: int
    share: float


@dataclass(frozen=True, slots=True)
class BudgetNumbers:
    """A budget: its tokens for a period, ``day`` or ``month``, and where its use leads.

    ``projected``: the tokens of the period at its end. ``crosses_on``: the UTC day on which the
    budget is reached; ``None`` if it is not reached in the period.
    """

    period: str
    tokens: int
    projected: int
    crosses_on: date | None


# What distinguishes a finding: its kind, its part and the agent's id (empty for an organization).
Key = tuple[Kind, Part, str]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One unusual thing on one day.

    Attributes:
        kind, part, agent: the key; ``agent`` is empty unless ``part`` is ``AGENT``.
        opened_at: the end of the hour, or of the day, in which the rule was first satisfied.
        start, end: the period that is unusual, half-open. ``start`` never changes once opened.
        observed: the tokens in that period.
        usual: the usual tokens of that period; ``None`` where nothing is usual.
        agents: the agents that explain it, largest share first, at most MOST_AGENTS.
        detail: which rule of the kind it satisfies, one of DETAILS. The sentence depends on it.
        collected: how many agents or findings it stands for, if it stands for several.
    """

    kind: Kind
    part: Part
    agent: str
    severity: Severity
    opened_at: datetime
    start: datetime
    end: datetime
    observed: int
    usual: Range | None
    agents: tuple[Share, ...]
    detail: str
    collected: int = 0

    @property
    def key(self) -> Key:
        """What tells this candidate from others of the same organization and day."""
        return self.kind, self.part, self.agent


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the rules see on one day.

    Attributes:
        day: the judged day.
        whole: whether the day is over and counted.
        through: the end of the last judged hour.
        candidates: in the order of ``opened_at``.
        recovered: the ends of hours in which the organization was as busy as it should be.
        counts: the day's tokens by agent.
        shares: of the month so far, by agent; empty unless the day is whole.
    """

    day: date
    whole: bool
    through: datetime
    candidates: tuple[Candidate, ...] = ()
    recovered: tuple[datetime, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finding:
    """A finding of one organization, as it is stored.

    ``id`` is the same wherever the same counts are judged. ``last_seen`` is the ``end`` of the
    newest candidate. ``resolution`` says why it was resolved: one of RESOLUTIONS. ``budget``: that
    of a finding of the kind ``budget``.
    """

    id: str
    kind: Kind
    part: Part
    agent: str
    severity: Severity
    opened_at: datetime
    start: datetime
    end: datetime
    last_seen: datetime
    observed: int
    usual: Range | None
    agents: tuple[Share, ...]
    detail: str
    collected: int = 0
    resolved_at: datetime | None = None
    resolution: str | None = None
    budget: BudgetNumbers | None = None

    @property
    def key(self) -> Key:
        """What no other open finding of the organization has."""
        return self.kind, self.part, self.agent

    @property
    def is_open(self) -> bool:
        """Whether it has not been resolved."""
        return self.resolved_at is None

    @property
    def scope(self) -> str:
        """``"agent"`` or ``"organization"``."""
        return "agent" if self.part is Part.AGENT else "organization"


DETAILS = (
    *("day", "burst"),  # spike
    *("loop",),  # retry_loop
    *("silent", "dropped", "day off"),  # silence
    *("empty hour", "own hours"),  # unusual_hour: of the organization, of the agent
    *("up", "down"),  # level_shift
    *("share", "first", "dormant", "waste"),  # the kinds with one rule
    *("crosses", "most", "all"),  # budget: it will be crossed, 80 % are used, all is used
)
# Ended: the numbers are usual again. Corrected: later counts show that it never was. New level:
# a level_shift explains the spike. Known: time has passed. The others are of budgets.
RESOLUTIONS = ("ended", "corrected", "new level", "known", "period over", "budget changed")
MOST_AGENTS = 5
MOST_OPEN = 20


def finding_id(tenant_id: str, key: Key, start: datetime, period: str = "") -> str:
    """The id of a finding: a hash of organization, kind, part, agent and the day of ``start``.

    Args:
        period: that of a budget, because its day and its month may begin on the same day.
    """
    kind, part, agent = key
    day = start.astimezone(UTC).date().isoformat()
    text = "\x00".join((tenant_id, kind, part, agent, day, *filter(None, (period,))))
    return sha256(text.encode()).hexdigest()[:32]
