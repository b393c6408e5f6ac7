"""Operations of the API for the OpenAPI document: parameters, examples, statuses and scopes.

The URL map and the types of bodies do not contain these.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import Enum
from typing import Any

import msgspec

from app.alerts.budgets import PERIODS as BUDGET_PERIODS
from app.alerts.webhooks import EndpointBody, EndpointChange, Quiet
from app.auth.api_keys import SCOPES
from app.auth.claims import AGENTS_WRITE, ANALYTICS_ADMIN, ANALYTICS_READ_ANY, EVENTS_WRITE
from app.config.settings import Settings
from app.detection import Kind
from app.ids import ID_SCHEMA_PATTERN
from app.intake.agent_names import AgentBody, NameBody
from app.intake.events import EventBody
from app.intake.finding_marks import MarkBody
from app.intake.formats import FORMATS
from app.intake.organization_settings import DaysOff, OrganizationSettings, Price
from app.reports.activity import HourCount
from app.reports.agents import SORTS, Agent
from app.reports.findings import (
    KINDS,
    STATUSES,
    Cursor,
    Finding,
    FindingAgent,
    UsualRange,
)
from app.reports.hours import HourTokens
from app.reports.organizations import ORDERS as ORGANIZATION_ORDERS
from app.reports.organizations import (
    PERIODS,
    Organization,
    OrganizationPlace,
    OrganizationsWanted,
    OrganizationTotals,
)
from app.reports.organizations import SORTS as ORGANIZATION_SORTS
from app.reports.summary import LargestAgent
from app.reports.trend import DayCount
from app.reports.usage import AgentCount
from app.web import params
from app.web.api.budgets import BudgetBody
from app.web.api.records import BATCH_TYPE, EVENT_TYPE, TYPES
from app.web.api.schemas import (
    AgentActivity,
    AgentDirectory,
    AgentName,
    AgentUsage,
    AgentUsageOfDays,
    Budget,
    BudgetList,
    CountingStatus,
    DeletedBudget,
    FindingList,
    Health,
    HourlyTokens,
    Key,
    KeyList,
    Link,
    LinkList,
    NamesReceipt,
    NewKey,
    NewWebhook,
    OrganizationList,
    PreviousDays,
    Receipt,
    TokenSummary,
    TokenTrend,
    Webhook,
    WebhookDeliveries,
    WebhookDelivery,
    WebhookList,
    WebhookTest,
)
from app.web.api.share_links import LinkBody
from app.web.csv_export import ESCAPED

JSON, NDJSON = "application/json", "application/x-ndjson"
REF = "#/components/schemas/{name}"

READ_ERRORS = (400, 401, 403, 429, 500, 503)
WRITE_ERRORS = (400, 401, 403, 408, 413, 415, 429, 500, 503)
MARK_ERRORS = (400, 401, 403, 404, 408, 413, 415, 429, 500, 503)
CREATE_ERRORS = (400, 401, 403, 408, 409, 413, 415, 429, 500, 503)
TEST_ERRORS = (401, 403, 404, 409, 429, 500, 503)
DELETE_ERRORS = (401, 403, 404, 429, 500, 503)
FOUND_ERRORS = (400, 401, 403, 404, 429, 500, 503)
# The headers of error responses, by status.
HEADERS = {
    401: {"WWW-Authenticate": "The challenge of RFC 6750."},
    403: {"WWW-Authenticate": "The challenge of RFC 6750."},
    429: {"Retry-After": "Seconds until the next request is allowed."},
    503: {"Retry-After": "Seconds after which to try again."},
}
READ_HEADERS = {
    "ETag": "The body's tag, for If-None-Match.",
    "Last-Modified": "When events were last counted. For information only.",
}
ETAG_HEADER = {"ETag": "The body's tag, for If-None-Match."}
# The headers of the reports that are also CSV.
TABLE_HEADERS = READ_HEADERS | {
    ESCAPED: "Only of CSV: how many cells have a `'` in front of a formula, and so differ from the"
    " stored text."
}
# Absent before the first count, or in JSON. The other headers are always sent with their status.
OPTIONAL_HEADERS = {"Last-Modified", ESCAPED}


class Group(Enum):
    """Groups of operations, in the order of the reference, each with its meaning."""

    READS = "Reads", "Numbers of an organization: by day, by hour, by hour of the week, by agent."
    FINDINGS = "Findings", "What is unusual, and people's marks on it."
    EVENTS = "Events", "Tokens that were issued, one event for each."
    NAMES = "Names", "Names of agents, and how long their tokens live."
    KEYS = "Keys", "Credentials of machines that cannot get tokens."
    SETTINGS = "Settings", "Days off, the price and the lifetime of tokens of an organization."
    BUDGETS = "Budgets", "Limits of tokens for a day or a month, and how they will be used."
    WEBHOOKS = "Webhooks", "Where findings are sent, and what was delivered."
    SHARING = "Share links", "Pages for people without a token, read-only and for a limited time."
    OPERATORS = "Organizations", "All organizations, for the operator of the service."
    SERVICE = "Service", "Whether the service works, for probes and load balancers."

    def __init__(self, title: str, meaning: str) -> None:
        self.title = title
        self.meaning = meaning


@dataclass(frozen=True)
class Operation:
    """One route of the API.

    ``example`` is the body of a response with ``status``. ``other`` is a body of another type that
    the route also has, with other parameters. The command of the reference has the examples of the
    parameters in ``shown``, and the body ``sample`` if that of the document is not for everybody.
    """

    group: Group
    example: msgspec.Struct
    other: msgspec.Struct | None = None
    status: int = 200
    parameters: Sequence[Mapping[str, Any]] = ()
    errors: Sequence[int] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    request_body: Mapping[str, Any] | None = None
    scope: str | None = None
    shown: Sequence[str] = ()
    sample: Any = None

    @property
    def bodies(self) -> list[msgspec.Struct]:
        return [self.example] if self.other is None else [self.example, self.other]


def _query(name: str, text: str, schema: Mapping[str, Any], example: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": text, "schema": schema, "example": example}


def _header(name: str, text: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": text, "schema": schema}


def _number(largest: int, **more: Any) -> dict[str, Any]:
    return {"type": "integer", "minimum": 1, "maximum": largest, **more}


def _text(pattern: str) -> dict[str, Any]:
    return {"type": "string", "minLength": 1, "maxLength": 255, "pattern": pattern}


_A_DAY = {"type": "string", "format": "date"}
FROM = _query("from", "The first day; only together with `to`.", _A_DAY, "2026-04-01")
TO = _query(
    "to",
    f"The last day; one of the {params.MAX_RANGE_DAYS} days that begin with `from`.",
    _A_DAY,
    "2026-04-30",
)
TO_HOURLY = _query(
    "to",
    f"The last day; one of the {params.MAX_HOURLY_DAYS} days that begin with `from`.",
    _A_DAY,
    "2026-04-02",
)
DAYS_ZONE = _query(
    "zone",
    "The time zone of the days and hours, a name of the IANA database. Without it: UTC.",
    {"type": "string"},
    "Europe/Berlin",
)
RANGE_ZONE = _query(
    "zone",
    "With `from` and `to`: the time zone of the days, a name of the IANA database, or else UTC.",
    {"type": "string"},
    "Europe/Berlin",
)
AGENT = _query(
    "agentId",
    "Only the tokens of this agent.",
    _text(ID_SCHEMA_PATTERN),
    "agent-1",
)
ORGANIZATION = _query(
    params.ORGANIZATION,
    "The organization to read; only with the scope `analytics:read:any`. Without it: the caller's"
    " own.",
    _text(ID_SCHEMA_PATTERN),
    "org-1",
)
DAYS = _query(
    "days",
    "The number of days; the last one is today. Not together with `from` and `to`.",
    _number(params.MAX_DAYS, default=params.DEFAULT_DAYS),
    7,
)
MONTHS = _query(
    "months",
    "The number of calendar months; the last one is the current month. Not together with `from`"
    " and `to`. Without these: all recorded activity.",
    _number(params.MAX_MONTHS),
    3,
)
MONTH = _query(
    "month",
    "The month, YYYY-MM from 1970 on. Not together with `from` and `to`. Without these: the current"
    " month.",
    {"type": "string", "pattern": "^(19[7-9][0-9]|[2-9][0-9]{3})-(0[1-9]|1[0-2])$"},
    "2026-04",
)
LIMIT = _query(
    "limit",
    "The maximum number of agents. Without it: all agents.",
    _number(params.MAX_AGENTS),
    20,
)
AGENT_ID = {
    "name": "agentId",
    "in": "path",
    "description": "The agent's id; slashes may be unescaped.",
    "required": True,
    "schema": _text(ID_SCHEMA_PATTERN),
    "example": "agent-1",
}
KEY_ID = {
    "name": "keyId",
    "in": "path",
    "description": "The key's id.",
    "required": True,
    "schema": {"type": "string", "pattern": "^[0-9A-Za-z]{12}$"},
    "example": "7Qm2XcVb9TzK",
}
LINK_ID = {
    "name": "linkId",
    "in": "path",
    "description": "The link's id.",
    "required": True,
    "schema": {"type": "string", "pattern": "^[0-9A-Za-z]{16}$"},
    "example": "k2Jm0ZcXb9TzQw4L",
}
BUDGET_AGENT = _query(
    "agentId",
    "The agent of the budget. Without it: that of the organization.",
    _text(ID_SCHEMA_PATTERN),
    "agent-1",
)
BUDGET_PERIOD = {
    **_query(
        "period",
        "The period of the budget.",
        {"type": "string", "enum": list(BUDGET_PERIODS)},
        "month",
    ),
    "required": True,
}
WEBHOOK_ID = {
    "name": "webhookId",
    "in": "path",
    "description": "The endpoint's id.",
    "required": True,
    "schema": {"type": "string", "pattern": "^[0-9A-Za-z]{12}$"},
    "example": "8Rn3YdWc0UaL",
}
FINDING_ID = {
    "name": "findingId",
    "in": "path",
    "description": "The finding's id.",
    "required": True,
    "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    "example": "4b3ce7a3c9d5f1f0a8a1b0ec1fbcf8d2",
}
STATUS = _query(
    "status",
    "Open findings, resolved ones, or all.",
    {"type": "string", "enum": list(STATUSES), "default": STATUSES[0]},
    "all",
)
KIND = _query("kind", "Findings of one kind.", {"type": "string", "enum": list(KINDS)}, "spike")
OF_AGENT = _query(
    "agentId",
    "Findings about one agent.",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": ID_SCHEMA_PATTERN},
    "agent-1",
)
FIRST_DAY = _query(
    "from",
    "Findings whose period ends on this day (UTC) or later.",
    {"type": "string", "format": "date"},
    "2026-04-01",
)
LAST_DAY = _query(
    "to",
    "Findings whose period begins on this day (UTC) or earlier.",
    {"type": "string", "format": "date"},
    "2026-04-30",
)
FINDINGS_LIMIT = _query(
    "limit",
    "The maximum number of findings on a page.",
    _number(params.MAX_AGENTS, default=params.DEFAULT_PAGE),
    100,
)
DELIVERIES_LIMIT = _query(
    "limit",
    "The maximum number of messages.",
    _number(params.MAX_AGENTS, default=params.DEFAULT_PAGE),
    100,
)
PAGE_LIMIT = _query(
    "limit",
    "The maximum number of agents on a page.",
    _number(params.MAX_AGENTS, default=params.DEFAULT_PAGE),
    100,
)
CURSOR = _query(
    "cursor",
    "The nextCursor of the previous page.",
    {"type": "string"},
    params.next_cursor("agent-1"),
)
FINDINGS_CURSOR = _query(
    "cursor",
    "The nextCursor of the previous page.",
    {"type": "string"},
    params.next_finding_cursor(
        Cursor(datetime(2026, 4, 14, 11, tzinfo=UTC), "4b3ce7a3c9d5f1f0a8a1b0ec1fbcf8d2")
    ),
)
SEARCH = _query(
    "q",
    "A part of the name or the id. The case of ASCII letters is ignored.",
    _text(ID_SCHEMA_PATTERN),
    "billing",
)
SORT = _query(
    "sort",
    "The order: by id, or by the last day, the latest first.",
    {"type": "string", "enum": list(SORTS), "default": SORTS[0]},
    "lastSeen",
)
PERIOD = _query(
    "period",
    "The last 7 or 28 days, or 13 weeks, without today (UTC).",
    {"type": "string", "enum": list(PERIODS), "default": next(iter(PERIODS))},
    "7d",
)
ORGANIZATIONS_SEARCH = _query(
    "q",
    "A part of the organization's id. The case of ASCII letters is ignored.",
    _text(ID_SCHEMA_PATTERN),
    "org",
)
ORGANIZATIONS_SORT = _query(
    "sort",
    "The order; equal organizations are by id, and those without a value are last.",
    {"type": "string", "enum": list(ORGANIZATION_SORTS), "default": ORGANIZATION_SORTS[0]},
    "change",
)
ORGANIZATIONS_ORDER = _query(
    "order",
    "The largest first, or the smallest. Without it: the largest, and with `sort=id` the smallest.",
    {"type": "string", "enum": list(ORGANIZATION_ORDERS)},
    "asc",
)
ORGANIZATIONS_LIMIT = _query(
    "limit",
    "The maximum number of organizations on a page. CSV without it has all.",
    _number(params.MAX_AGENTS, default=params.DEFAULT_PAGE),
    100,
)
ORGANIZATIONS_CURSOR = _query(
    "cursor",
    "The nextCursor of the previous page in the same period and order.",
    {"type": "string"},
    params.next_organizations_cursor(
        OrganizationPlace(0.25, "org-1"), OrganizationsWanted(sort="change")
    ),
)
INVALID = _query(
    "invalid",
    "Store the valid events of a batch and list the invalid ones in `rejected`.",
    {"type": "string", "enum": ["skip"]},
    "skip",
)
FORMAT = _query(
    "format",
    "The format of a provider's log, as `flask events import` has it. Without it the body has"
    " events of this service, or CloudEvents.",
    {"type": "string", "enum": sorted(FORMATS)},
    "ndjson",
)
ZONE = _query(
    "zone",
    "With `format`: the time zone of times without an offset.",
    {"type": "string"},
    "Europe/Berlin",
)
BOM = _query(
    "bom",
    "Begin CSV with a byte order mark, so that spreadsheets read it as UTF-8.",
    {"type": "string", "enum": ["1"]},
    "1",
)
IF_NONE_MATCH = _header(
    "If-None-Match",
    "The ETag of an earlier response. The status is 304 while the body has not changed.",
    {"type": "string"},
)
ENCODING = _header(
    "Content-Encoding",
    "The compression of the body.",
    {"type": "string", "enum": ["identity", "gzip"]},
)

EVENT = {
    "id": "event-1",
    "organizationId": "org-1",
    "agentId": "agent-1",
    "issuedAt": "2026-04-01T09:00:00Z",
    "agentName": "billing-sync",
}
# A writer for one organization may leave it out.
OWN_EVENT = {name: value for name, value in EVENT.items() if name != "organizationId"}
CLOUDEVENT = {
    "specversion": "1.0",
    "id": "event-1",
    "source": "/idp",
    "type": "com.example.token.issued",
    "time": "2026-04-01T09:00:00Z",
    "organizationid": "org-1",
    "data": {"clientId": "agent-1"},
}
NAMED = {"agentId": "agent-1", "name": "billing-sync"}
KEY: dict[str, Any] = {
    "id": "7Qm2XcVb9TzK",
    "prefix": "agk_7Qm2XcVb9TzK",
    "scopes": ["events:write"],
    "note": "log stream",
    "created": datetime(2026, 4, 1, 9, tzinfo=UTC),
    "expires": datetime(2030, 1, 1, tzinfo=UTC),
    "revoked": None,
    "last_used": None,
}
USED = KEY | {"last_used": date(2026, 4, 2)}
REVOKED = USED | {"revoked": datetime(2026, 4, 2, 10, tzinfo=UTC)}
# It is longer than a key, so that nobody takes it for one.
NO_KEY = "agk_7Qm2XcVb9TzK..."


LINK_BODY = {"views": ["tokens", "agents"], "days": 28, "expires": "2026-07-01T00:00:00Z"}
NEW_LINK = Link(
    id="k2Jm0ZcXb9TzQw4L",
    # It is no signature, so that nobody takes it for one.
    url="https://analytics.example.com/shared/k2Jm0ZcXb9TzQw4L...",
    views=["tokens", "agents"],
    days=28,
    created=datetime(2026, 4, 1, 9, tzinfo=UTC),
    created_by="user-1",
    expires=datetime(2026, 7, 1, tzinfo=UTC),
    revoked=None,
    opened=0,
    last_opened=None,
)
SHARED = msgspec.structs.replace(
    NEW_LINK, opened=3, last_opened=datetime(2026, 4, 2, 9, tzinfo=UTC)
)
UNSHARED = msgspec.structs.replace(SHARED, revoked=datetime(2026, 4, 2, 10, tzinfo=UTC))
BUDGET_BODY = {"agentId": None, "period": "month", "tokens": 100_000}
BUDGET = Budget(None, "month", 100_000, 61_240, 38_760, 104_300, date(2026, 4, 29))
AGENT_BUDGET = Budget("agent-1", "day", 500, 120, 380, 310, None)
WEBHOOK_BODY = {
    "url": "https://example.com/hooks/findings",
    "format": "standard",
    "kinds": ["spike", "silence"],
    "minSeverity": "warning",
    "cooldownMinutes": 60,
    "quiet": {"from": "22:00", "to": "06:00", "zone": "Europe/Berlin"},
    "digest": "weekly",
}
WEBHOOK_CHANGE = {"kinds": None, "enabled": True}
WEBHOOK = Webhook(
    id="8Rn3YdWc0UaL",
    url="https://example.com/hooks/findings",
    format="standard",
    kinds=["spike", "silence"],
    min_severity="warning",
    cooldown_minutes=60,
    quiet=Quiet("22:00", "06:00", "Europe/Berlin"),
    digest="weekly",
    created=datetime(2026, 4, 1, 9, tzinfo=UTC),
    created_by="user-1",
    disabled=None,
    disabled_reason=None,
    failures=0,
    paused_until=None,
)
# It is no base64, so that nobody takes it for a secret.
WHSEC = "whsec_..."
NEW_WEBHOOK = NewWebhook(secret=WHSEC, **msgspec.structs.asdict(WEBHOOK))
CHANGED_WEBHOOK = msgspec.structs.replace(WEBHOOK, kinds=None)
_OPENED = datetime(2026, 4, 14, 11, tzinfo=UTC)
DELIVERY = WebhookDelivery(
    id="4b3ce7a3c9d5f1f0a8a1b0ec1fbcf8d2.1.8Rn3YdWc0UaL",
    event="finding.opened",
    finding_id="4b3ce7a3c9d5f1f0a8a1b0ec1fbcf8d2",
    status="delivered",
    attempts=1,
    last_status=204,
    error=None,
    created=datetime(2026, 4, 14, 11, 0, 30, tzinfo=UTC),
    next=None,
    done=datetime(2026, 4, 14, 11, 0, 33, tzinfo=UTC),
)
FINDING = Finding(
    id="4b3ce7a3c9d5f1f0a8a1b0ec1fbcf8d2",
    kind=Kind.SPIKE,
    severity="warning",
    status="open",
    opened_at=_OPENED,
    detected_at=datetime(2026, 4, 14, 11, 0, 20, tzinfo=UTC),
    updated_at=datetime(2026, 4, 14, 12, 0, 20, tzinfo=UTC),
    resolved_at=None,
    resolution=None,
    begins_at=datetime(2026, 4, 14, tzinfo=UTC),
    ends_at=datetime(2026, 4, 15, tzinfo=UTC),
    observed=5120,
    usual=UsualRange(1150, 1390, 1640),
    scope="organization",
    agents=[FindingAgent("agent-1", "billing-sync", 3900, 780, 0.83)],
    summary="Tue 14 Apr: 5,120 tokens by 11:00, usually 1,150\N{EN DASH}1,640 on a whole Tuesday;"
    " billing-sync made 83 % of the excess.",
    advice="Check billing-sync for a retry loop, and whether its credential has leaked.",
    acknowledged=False,
    acknowledged_by=None,
    note=None,
)
MARKS = {"acknowledged": True, "note": "a load test"}
MARKED = msgspec.structs.replace(
    FINDING,
    status="resolved",
    resolved_at=datetime(2026, 4, 14, 13, tzinfo=UTC),
    resolution="acknowledged",
    updated_at=datetime(2026, 4, 14, 13, tzinfo=UTC),
    acknowledged=True,
    acknowledged_by="user-1",
    note="a load test",
)
SETTINGS = OrganizationSettings(DaysOff("DE", "BY", [date(2026, 12, 24)]), Price(0.5, "EUR"), 3600)


def _event_body(settings: Settings) -> dict[str, Any]:
    event = {"$ref": REF.format(name=EventBody.__name__)}
    several = {"type": "array", "items": event, "maxItems": settings.max_batch_events}
    line = msgspec.json.encode(EVENT).decode()
    return {
        "required": True,
        "description": f"At most {settings.max_batch_events} events and"
        f" {settings.max_body_bytes} bytes, both compressed and decompressed. An event of more"
        f" than {settings.max_event_bytes} bytes is invalid. No string may contain a NUL, even in"
        " ignored members. With `format`, the body has records of a provider's log, and may be"
        f" {', '.join(TYPES)}.",
        "content": {
            JSON: {"schema": {"anyOf": [event, several]}, "example": [EVENT]},
            NDJSON: {"schema": {"type": "string"}, "example": f"{line}\n"},
            EVENT_TYPE: {"schema": {"type": "object"}, "example": CLOUDEVENT},
            BATCH_TYPE: {
                "schema": {
                    "type": "array",
                    "items": {"type": "object"},
                    "maxItems": settings.max_batch_events,
                },
                "example": [CLOUDEVENT],
            },
        },
    }


def _name_body(schema: Mapping[str, Any], example: Any, settings: Settings) -> dict[str, Any]:
    return {
        "required": True,
        "description": f"At most {settings.max_body_bytes} bytes, both compressed and"
        f" decompressed, and {settings.max_event_bytes} bytes for one agent. No string may contain"
        " a NUL.",
        "content": {JSON: {"schema": schema, "example": example}},
    }


def _names_body(settings: Settings) -> dict[str, Any]:
    agent = {"$ref": REF.format(name=AgentBody.__name__)}
    several = {"type": "array", "items": agent, "maxItems": params.MAX_AGENTS}
    within = {"type": "object", "properties": {"data": several}, "required": ["data"]}
    return _name_body({"anyOf": [several, within]}, [NAMED], settings)


def _key_body(settings: Settings) -> dict[str, Any]:
    properties = {
        "scopes": {
            "type": "array",
            "items": {"type": "string", "enum": list(SCOPES)},
            "minItems": 1,
            "maxItems": len(SCOPES),
        },
        "note": {
            "type": ["string", "null"],
            "minLength": 1,
            "maxLength": 255,
            "pattern": ID_SCHEMA_PATTERN,
        },
        "expires": {
            "type": ["string", "null"],
            "format": "date-time",
            "description": "RFC 3339 with an offset, in the future. Without it the key does not"
            " expire.",
        },
    }
    example = {"scopes": KEY["scopes"], "note": KEY["note"], "expires": "2030-01-01T00:00:00Z"}
    schema: dict[str, Any] = {"type": "object", "properties": properties, "required": ["scopes"]}
    schema["additionalProperties"] = False
    return {
        "required": True,
        "description": f"At most {settings.max_event_bytes} bytes.",
        "content": {JSON: {"schema": schema, "example": example}},
    }


def _small_body(kind: type, example: Any, settings: Settings) -> dict[str, Any]:
    schema = {"$ref": REF.format(name=kind.__name__)}
    return {
        "required": True,
        "description": f"At most {settings.max_event_bytes} bytes.",
        "content": {JSON: {"schema": schema, "example": example}},
    }


def name_of(endpoint: str) -> str:
    """The id of the operation of a Flask endpoint."""
    return endpoint.replace(".", "_")


def operations(settings: Settings) -> dict[str, Operation]:
    """The operations by Flask endpoint."""
    reads: dict[str, Any] = {"errors": READ_ERRORS, "headers": READ_HEADERS}
    tables = reads | {"headers": TABLE_HEADERS}
    first, second = date(2026, 4, 1), date(2026, 4, 2)
    agents = [
        Agent(
            agent_id="agent-1",
            name="billing-sync",
            first_month="2026-03",
            last_month="2026-04",
            token_count=455,
            first_day=date(2026, 3, 9),
            last_day=second,
            active_days=20,
            token_lifetime=900,
        )
    ]
    name = {"$ref": REF.format(name=NameBody.__name__)}
    days = [DayCount(first, 142), DayCount(second, 0)]
    hours = [HourTokens("2026-04-01T00:00:00Z", 17), HourTokens("2026-04-01T01:00:00Z", 0)]
    used = [AgentCount("agent-1", 312)]
    return {
        "analytics.token_trend": Operation(
            Group.READS,
            TokenTrend("org-1", 2, days),
            parameters=(DAYS, FROM, TO, DAYS_ZONE, AGENT, ORGANIZATION, BOM, IF_NONE_MATCH),
            **tables,
            shown=("from", "to"),
        ),
        "analytics.hourly_tokens": Operation(
            Group.READS,
            HourlyTokens("org-1", first, first, hours),
            parameters=(FROM, TO_HOURLY, DAYS_ZONE, ORGANIZATION, BOM, IF_NONE_MATCH),
            **tables,
            shown=("from", "to"),
        ),
        "analytics.token_summary": Operation(
            Group.READS,
            TokenSummary(
                tenant_id="org-1",
                first=first,
                last=second,
                total=142,
                previous=PreviousDays(date(2026, 3, 30), date(2026, 3, 31), 80),
                change=0.775,
                active_agents=3,
                largest_agent=LargestAgent("agent-1", 0.5),
            ),
            parameters=(FROM, TO, DAYS_ZONE, ORGANIZATION, BOM, IF_NONE_MATCH),
            **tables,
            shown=("from", "to"),
        ),
        "analytics.counting_status": Operation(
            Group.READS,
            CountingStatus(
                "org-1",
                datetime(2026, 4, 2, 9, 30, tzinfo=UTC),
                datetime(2026, 4, 2, 9, tzinfo=UTC),
                4,
                12,
            ),
            parameters=(ORGANIZATION, BOM, IF_NONE_MATCH),
            **tables,
        ),
        "analytics.agent_activity": Operation(
            Group.READS,
            AgentActivity("org-1", [HourCount(1, 9, 54)]),
            parameters=(MONTHS, FROM, TO, RANGE_ZONE, ORGANIZATION, BOM, IF_NONE_MATCH),
            **tables,
            shown=("from", "to"),
        ),
        "analytics.agent_usage": Operation(
            Group.READS,
            AgentUsage("org-1", "2026-04", used),
            AgentUsageOfDays("org-1", first, second, used),
            parameters=(MONTH, FROM, TO, RANGE_ZONE, LIMIT, ORGANIZATION, BOM, IF_NONE_MATCH),
            **tables,
            shown=("from", "to", "limit"),
        ),
        "events.post_events": Operation(
            Group.EVENTS,
            Receipt(2, 1, 1),
            status=202,
            parameters=(FORMAT, ZONE, INVALID, ENCODING),
            errors=WRITE_ERRORS,
            request_body=_event_body(settings),
            scope=EVENTS_WRITE,
            sample=[OWN_EVENT],
        ),
        "agents.list_agents": Operation(
            Group.READS,
            AgentDirectory("org-1", agents, params.next_cursor("agent-1")),
            parameters=(PAGE_LIMIT, CURSOR, SEARCH, SORT, ORGANIZATION, IF_NONE_MATCH),
            **reads,
            shown=("limit", "sort"),
        ),
        "naming.name_agents": Operation(
            Group.NAMES,
            NamesReceipt(1),
            parameters=(ENCODING,),
            errors=WRITE_ERRORS,
            request_body=_names_body(settings),
            scope=AGENTS_WRITE,
        ),
        "naming.name_agent": Operation(
            Group.NAMES,
            AgentName("agent-1", "billing-sync"),
            parameters=(AGENT_ID, ENCODING),
            errors=WRITE_ERRORS,
            request_body=_name_body(name, {"name": "billing-sync"}, settings),
            scope=AGENTS_WRITE,
        ),
        "keys.list_keys": Operation(
            Group.KEYS, KeyList("org-1", [Key(**USED)]), errors=READ_ERRORS, scope=ANALYTICS_ADMIN
        ),
        "keys.create_key": Operation(
            Group.KEYS,
            NewKey(key=NO_KEY, **KEY),
            status=201,
            parameters=(ENCODING,),
            errors=CREATE_ERRORS,
            request_body=_key_body(settings),
            scope=ANALYTICS_ADMIN,
        ),
        "keys.revoke_key": Operation(
            Group.KEYS,
            Key(**REVOKED),
            parameters=(KEY_ID,),
            errors=DELETE_ERRORS,
            scope=ANALYTICS_ADMIN,
        ),
        "share_links.list_links": Operation(
            Group.SHARING, LinkList("org-1", [SHARED]), errors=READ_ERRORS, scope=ANALYTICS_ADMIN
        ),
        "share_links.create_link": Operation(
            Group.SHARING,
            NEW_LINK,
            status=201,
            parameters=(ENCODING,),
            errors=CREATE_ERRORS,
            request_body=_small_body(LinkBody, LINK_BODY, settings),
            scope=ANALYTICS_ADMIN,
        ),
        "share_links.revoke_link": Operation(
            Group.SHARING,
            UNSHARED,
            parameters=(LINK_ID,),
            errors=DELETE_ERRORS,
            scope=ANALYTICS_ADMIN,
        ),
        "webhooks.list_endpoints": Operation(
            Group.WEBHOOKS,
            WebhookList("org-1", [WEBHOOK]),
            errors=READ_ERRORS,
            scope=ANALYTICS_ADMIN,
        ),
        "webhooks.create_endpoint": Operation(
            Group.WEBHOOKS,
            NEW_WEBHOOK,
            status=201,
            parameters=(ENCODING,),
            errors=CREATE_ERRORS,
            request_body=_small_body(EndpointBody, WEBHOOK_BODY, settings),
            scope=ANALYTICS_ADMIN,
        ),
        "webhooks.one_endpoint": Operation(
            Group.WEBHOOKS,
            WEBHOOK,
            parameters=(WEBHOOK_ID,),
            errors=FOUND_ERRORS,
            scope=ANALYTICS_ADMIN,
        ),
        "webhooks.change_endpoint": Operation(
            Group.WEBHOOKS,
            CHANGED_WEBHOOK,
            parameters=(WEBHOOK_ID, ENCODING),
            errors=MARK_ERRORS,
            request_body=_small_body(EndpointChange, WEBHOOK_CHANGE, settings),
            scope=ANALYTICS_ADMIN,
        ),
        "webhooks.delete_endpoint": Operation(
            Group.WEBHOOKS,
            CHANGED_WEBHOOK,
            parameters=(WEBHOOK_ID,),
            errors=DELETE_ERRORS,
            scope=ANALYTICS_ADMIN,
        ),
        "webhooks.rotate_secret": Operation(
            Group.WEBHOOKS,
            NEW_WEBHOOK,
            parameters=(WEBHOOK_ID,),
            errors=DELETE_ERRORS,
            scope=ANALYTICS_ADMIN,
        ),
        "webhooks.send_test": Operation(
            Group.WEBHOOKS,
            WebhookTest("test-5f0c1d2e3a4b5c6d.8Rn3YdWc0UaL"),
            status=202,
            parameters=(WEBHOOK_ID,),
            errors=TEST_ERRORS,
            scope=ANALYTICS_ADMIN,
        ),
        "webhooks.list_deliveries": Operation(
            Group.WEBHOOKS,
            WebhookDeliveries("org-1", "8Rn3YdWc0UaL", [DELIVERY]),
            parameters=(WEBHOOK_ID, DELIVERIES_LIMIT),
            errors=FOUND_ERRORS,
            scope=ANALYTICS_ADMIN,
        ),
        "findings.list_findings": Operation(
            Group.FINDINGS,
            FindingList(
                "org-1", [FINDING], params.next_finding_cursor(Cursor(_OPENED, FINDING.id))
            ),
            parameters=(
                *(STATUS, KIND, OF_AGENT, FIRST_DAY, LAST_DAY),
                *(FINDINGS_LIMIT, FINDINGS_CURSOR, ORGANIZATION, IF_NONE_MATCH),
            ),
            errors=READ_ERRORS,
            headers=ETAG_HEADER,
            shown=("status",),
        ),
        "findings.one_finding": Operation(
            Group.FINDINGS,
            FINDING,
            parameters=(FINDING_ID, ORGANIZATION, IF_NONE_MATCH),
            errors=FOUND_ERRORS,
            headers=ETAG_HEADER,
        ),
        "marks.mark": Operation(
            Group.FINDINGS,
            MARKED,
            parameters=(FINDING_ID, ENCODING),
            errors=MARK_ERRORS,
            request_body=_small_body(MarkBody, MARKS, settings),
            scope=ANALYTICS_ADMIN,
        ),
        "settings.show_settings": Operation(
            Group.SETTINGS, SETTINGS, errors=READ_ERRORS, scope=ANALYTICS_ADMIN
        ),
        "settings.replace_settings": Operation(
            Group.SETTINGS,
            SETTINGS,
            parameters=(ENCODING,),
            errors=WRITE_ERRORS,
            request_body=_small_body(OrganizationSettings, msgspec.to_builtins(SETTINGS), settings),
            scope=ANALYTICS_ADMIN,
        ),
        "budgets.list_budgets": Operation(
            Group.BUDGETS,
            BudgetList("org-1", [BUDGET, AGENT_BUDGET]),
            parameters=(IF_NONE_MATCH,),
            errors=READ_ERRORS,
            headers=READ_HEADERS,
            scope=ANALYTICS_ADMIN,
        ),
        "budgets.set_budget": Operation(
            Group.BUDGETS,
            BUDGET,
            parameters=(ENCODING,),
            errors=CREATE_ERRORS,
            request_body=_small_body(BudgetBody, BUDGET_BODY, settings),
            scope=ANALYTICS_ADMIN,
        ),
        "budgets.delete_budget": Operation(
            Group.BUDGETS,
            DeletedBudget("agent-1", "month", 5000),
            parameters=(BUDGET_AGENT, BUDGET_PERIOD),
            errors=FOUND_ERRORS,
            shown=("agentId", "period"),
            scope=ANALYTICS_ADMIN,
        ),
        "organizations.list_organizations": Operation(
            Group.OPERATORS,
            OrganizationList(
                "7d",
                date(2026, 4, 1),
                date(2026, 4, 7),
                datetime(2026, 4, 8, 9, 30, tzinfo=UTC),
                OrganizationTotals(2, 2, 1000, 500, 1.0, 12, 1),
                2,
                [
                    Organization(
                        "org-1",
                        800,
                        640,
                        0.25,
                        0.8,
                        9,
                        date(2026, 4, 8),
                        1,
                        [100, 120, 130, 120, 130, 90, 110],
                    )
                ],
                params.next_organizations_cursor(
                    OrganizationPlace(800, "org-1"), OrganizationsWanted()
                ),
            ),
            parameters=(
                *(PERIOD, ORGANIZATIONS_SEARCH, ORGANIZATIONS_SORT, ORGANIZATIONS_ORDER),
                *(ORGANIZATIONS_LIMIT, ORGANIZATIONS_CURSOR, BOM, IF_NONE_MATCH),
            ),
            scope=ANALYTICS_READ_ANY,
            **tables,
        ),
        "health.health": Operation(Group.SERVICE, Health("ok"), errors=(500,)),
        "health.ready": Operation(Group.SERVICE, Health("ready"), errors=(500, 503)),
    }
