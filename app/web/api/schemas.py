"""Schemas: the bodies of the API's responses. The OpenAPI document is made from these types."""

from datetime import date, datetime
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import UNSET, UnsetType

from app.ids import Id
from app.intake.agent_names import Name
from app.intake.events import EventError
from app.reports.activity import HourCount
from app.reports.agents import Agent
from app.reports.base import Count, Month
from app.reports.trend import DayCount
from app.reports.usage import AgentCount
from app.web.params import MAX_DAYS


class ResponseBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """The body of a response. Members that are UNSET are left out."""


class TokenTrend(ResponseBody):
    """Tokens issued per UTC day, oldest first, today last; a day without tokens counts 0."""

    point: ClassVar = DayCount
    file: ClassVar = "tokens"

    tenant_id: Id
    days: Annotated[int, msgspec.Meta(ge=1, le=MAX_DAYS)]
    data: list[DayCount]


class AgentActivity(ResponseBody):
    """Tokens issued per day of week and hour (UTC), in that order, without empty cells."""

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


class AgentDirectory(ResponseBody):
    """Agents that have a name or were issued tokens, by id.

    ``nextCursor`` is the ``cursor`` of the next page; it is null on the last page.
    """

    tenant_id: Id
    data: list[Agent]
    next_cursor: str | None


class AgentName(ResponseBody):
    """The new name of an agent."""

    agent_id: Id
    name: Name | None


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


class NamesReceipt(ResponseBody):
    """The number of names that were received and stored."""

    received: Count


# Reports that are also available as CSV.
Tabular = TokenTrend | AgentActivity | AgentUsage


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
