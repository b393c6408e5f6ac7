"""Schemas: the bodies of the API's responses. The OpenAPI document is made from these types."""

from datetime import date, datetime
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import UNSET, UnsetType

from app.alerts.webhooks import Quiet
from app.ids import Id
from app.intake.agent_names import Name, TokenLifetime
from app.intake.events import EventError
from app.reports.activity import HourCount
from app.reports.agents import Agent
from app.reports.base import Count, Month, Point
from app.reports.findings import Finding
from app.reports.hours import HourTokens
from app.reports.organizations import Organization, OrganizationTotals
from app.reports.status import MOST_PENDING
from app.reports.summary import Fraction, LargestAgent
from app.reports.trend import DayCount
from app.reports.usage import AgentCount
from app.web.params import MAX_RANGE_DAYS


class ResponseBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """The body of a response. Members that are UNSET are left out."""

    has_days: ClassVar = True  # the report takes from and to


class TokenTrend(ResponseBody):
    """Tokens issued per day, oldest first; a day without tokens counts 0."""

    point: ClassVar = DayCount
    file: ClassVar = "tokens"

    tenant_id: Id
    days: Annotated[int, msgspec.Meta(ge=1, le=MAX_RANGE_DAYS)]
    data: list[DayCount]


class HourlyTokens(ResponseBody):
    """Tokens issued per hour of the days, oldest first; an hour without tokens counts 0."""

    point: ClassVar = HourTokens
    file: ClassVar = "hours"

    tenant_id: Id
    first: date = msgspec.field(name="from")
    last: date = msgspec.field(name="to")
    data: list[HourTokens]


class PreviousDays(ResponseBody):
    """The days with which a summary compares; ``total`` is null if they cannot be read."""

    first: date = msgspec.field(name="from")
    last: date = msgspec.field(name="to")
    total: Count | None


class SummaryRow(Point, frozen=True):
    """The summary as a line of CSV."""

    first: date = msgspec.field(name="from")
    last: date = msgspec.field(name="to")
    total: Count
    previous_from: date
    previous_to: date
    previous_total: Count | None
    change: float | None
    active_agents: Count
    largest_agent_id: Id | None
    largest_agent_share: float | None


class TokenSummary(ResponseBody):
    """The tokens of the whole counted days among those that were asked for.

    ``change`` is the growth since the ``previous`` days, as a share of their ``total``. It is null
    if these have no tokens or cannot be read. ``largestAgent`` is null if there are no tokens.
    """

    point: ClassVar = SummaryRow
    file: ClassVar = "summary"

    tenant_id: Id
    first: date = msgspec.field(name="from")
    last: date = msgspec.field(name="to")
    total: Count
    previous: PreviousDays
    change: float | None
    active_agents: Count
    largest_agent: LargestAgent | None

    @property
    def data(self) -> list[SummaryRow]:
        """The one line of the CSV."""
        previous, largest = self.previous, self.largest_agent
        return [
            SummaryRow(
                self.first,
                self.last,
                self.total,
                previous.first,
                previous.last,
                previous.total,
                self.change,
                self.active_agents,
                largest.agent_id if largest else None,
                largest.share if largest else None,
            )
        ]


class StatusRow(Point, frozen=True):
    """The status as a line of CSV."""

    counted_at: str | None
    complete_through: str | None
    lag_seconds: Count
    pending_events: Count


class CountingStatus(ResponseBody):
    """How far the organization's events are counted.

    ``completeThrough``: the hours that end by then are counted, apart from events that arrive later
    than usual. Both instants are null before the first count. ``lagSeconds`` is the age of the
    oldest event that is not counted yet; it is 0 without any. ``pendingEvents`` stops at 10,000.
    """

    point: ClassVar = StatusRow
    file: ClassVar = "status"
    has_days: ClassVar = False

    tenant_id: Id
    counted_at: datetime | None
    complete_through: datetime | None
    lag_seconds: Count
    pending_events: Annotated[int, msgspec.Meta(ge=0, le=MOST_PENDING)]

    @property
    def data(self) -> list[StatusRow]:
        """The one line of the CSV, with instants as in JSON."""
        members = msgspec.to_builtins(self)
        return [StatusRow(*(members[name] for name in StatusRow.__struct_encode_fields__))]


class AgentActivity(ResponseBody):
    """Tokens issued per day of week and hour, in that order, without empty cells."""

    point: ClassVar = HourCount
    file: ClassVar = "activity"

    tenant_id: Id
    data: list[HourCount]


class AgentUsage(ResponseBody):
    """Tokens issued per agent in one month, most tokens first, then by id."""

    point: ClassVar = AgentCount
    file: ClassVar = "agents"

    tenant_id: Id
    month: Month
    data: list[AgentCount]


class AgentUsageOfDays(ResponseBody):
    """Tokens issued per agent on some days, most tokens first, then by id."""

    point: ClassVar = AgentCount
    file: ClassVar = "agents"

    tenant_id: Id
    first: date = msgspec.field(name="from")
    last: date = msgspec.field(name="to")
    data: list[AgentCount]


class AgentDirectory(ResponseBody):
    """Agents that have a name or were issued tokens, by id or by their last day.

    ``nextCursor`` is the ``cursor`` of the next page; it is null on the last page.
    """

    tenant_id: Id
    data: list[Agent]
    next_cursor: str | None


class AgentName(ResponseBody):
    """The new name of an agent, and the lifetime of its tokens if the request has one."""

    agent_id: Id
    name: Name | None
    token_lifetime: TokenLifetime | UnsetType | None = UNSET


class Key(ResponseBody):
    """An API key, without its secret. ``lastUsed`` is a UTC day.

    An instant that is null has not come: the key does not expire, or is not revoked.
    """

    id: str
    prefix: str
    scopes: list[str]
    note: str | None
    created: datetime
    expires: datetime | None
    revoked: datetime | None
    last_used: date | None


class NewKey(Key):
    """A new API key. Only this response has the whole ``key``."""

    key: str


class KeyList(ResponseBody):
    """The API keys of the organization: usable ones first, then the newest first."""

    tenant_id: Id
    data: list[Key]


class Link(ResponseBody):
    """A share link. ``opened`` is how often its page was shown."""

    id: str
    url: str
    views: list[str]
    days: Count
    created: datetime
    created_by: str
    expires: datetime
    revoked: datetime | None
    opened: Count
    last_opened: datetime | None


class LinkList(ResponseBody):
    """The share links of the organization: usable ones first, then the newest first."""

    tenant_id: Id
    data: list[Link]


class Budget(ResponseBody):
    """A budget of the organization (``agentId`` is null) or of an agent, and how it is used.

    ``used`` are the tokens of the present UTC day or month, ``projected`` those at its end. Both
    are null for the day of an agent while its table is filled after an upgrade. ``crossesOn`` is
    the UTC day on which the budget is reached; it is null if it is not reached in the period.
    """

    agent_id: Id | None
    period: Literal["day", "month"]
    tokens: Count
    used: Count | None
    remaining: Count | None
    projected: Count | None
    crosses_on: date | None


class BudgetList(ResponseBody):
    """The budgets of the organization: its own first, then those of agents, by id."""

    tenant_id: Id
    data: list[Budget]


class DeletedBudget(ResponseBody):
    """A budget that was deleted."""

    agent_id: Id | None
    period: Literal["day", "month"]
    tokens: Count


class Webhook(ResponseBody):
    """An endpoint of webhooks, without its secret.

    ``disabled`` is null while messages are sent. ``failures`` are the failed attempts in a row,
    and no attempt is made before ``pausedUntil``.
    """

    id: str
    url: str
    format: Literal["standard", "slack", "teams", "email"]
    kinds: list[str] | None
    min_severity: Literal["info", "warning", "critical"]
    cooldown_minutes: Count
    quiet: Quiet | None
    digest: Literal["weekly", "monthly"] | None
    created: datetime
    created_by: str
    disabled: datetime | None
    disabled_reason: str | None
    failures: Count
    paused_until: datetime | None


class NewWebhook(Webhook):
    """An endpoint with its ``secret``, which verifies what it receives; null for e-mail."""

    secret: str | None


class WebhookList(ResponseBody):
    """The endpoints of the organization, the oldest first."""

    tenant_id: Id
    data: list[Webhook]


class WebhookTest(ResponseBody):
    """The ``webhook-id`` of a test message."""

    id: str


class WebhookDelivery(ResponseBody):
    """A message to an endpoint: whether it was delivered, and if not why.

    ``event`` is as ``finding.opened``. ``next`` is the time of the next attempt.
    """

    id: str
    event: str
    finding_id: str | None
    status: Literal["waiting", "delivered", "parked", "dropped"]
    attempts: Count
    last_status: int | None
    error: str | None
    created: datetime
    next: datetime | None
    done: datetime | None


class WebhookDeliveries(ResponseBody):
    """The messages to an endpoint, the newest first."""

    tenant_id: Id
    webhook_id: str
    data: list[WebhookDelivery]


class FindingList(ResponseBody):
    """Findings, newest first.

    ``nextCursor`` is the ``cursor`` of the next page; it is null on the last page.
    """

    tenant_id: Id
    data: list[Finding]
    next_cursor: str | None


class OrganizationRow(Point, frozen=True):
    """An organization as a line of CSV."""

    tenant_id: Id
    token_count: Count
    previous_token_count: Count
    change: float | None
    share: Fraction
    active_agents: Count | None
    last_day: date | None
    open_findings: Count


class OrganizationList(ResponseBody):
    """Organizations with their tokens from ``from`` to ``to``, and the totals of all of them.

    ``countedAt`` is when the tokens were counted. It and the days are null before the first list is
    complete. ``found`` is the number of organizations that match ``q``. ``nextCursor`` is the
    ``cursor`` of the next page; it is null on the last page.
    """

    point: ClassVar = OrganizationRow
    file: ClassVar = "organizations"

    period: Annotated[str, msgspec.Meta(pattern="^(7d|28d|13w)$")]
    first: date | None = msgspec.field(name="from")
    last: date | None = msgspec.field(name="to")
    counted_at: datetime | None
    totals: OrganizationTotals
    found: Count
    organizations: list[Organization] = msgspec.field(name="data")
    next_cursor: str | None

    @property
    def data(self) -> list[OrganizationRow]:
        """The lines of the CSV."""
        names = OrganizationRow.__struct_fields__
        return [
            OrganizationRow(*(getattr(one, name) for name in names)) for one in self.organizations
        ]


class NamesReceipt(ResponseBody):
    """The number of names that were received and stored."""

    received: Count


# Reports that are also available as CSV.
Tabular = (
    TokenTrend
    | HourlyTokens
    | TokenSummary
    | CountingStatus
    | AgentActivity
    | AgentUsage
    | AgentUsageOfDays
    | OrganizationList
)


class Receipt(ResponseBody):
    """The outcome of a batch.

    ``rejected`` is present when invalid events may be skipped. ``skipped`` is present with a
    ``format``: the number of records that are not issuances, by reason.
    """

    received: Count
    accepted: Count
    duplicates: Count
    rejected: list[EventError] | UnsetType = UNSET
    skipped: dict[str, Count] | UnsetType = UNSET


class Health(ResponseBody):
    """``ok``: the process responds. ``ready``: it can also read the database."""

    status: Literal["ok", "ready"]


class Problem(ResponseBody):
    """An error. The members of ``details`` depend on the code."""

    code: str
    message: str
    details: dict[str, Any] | UnsetType = UNSET
