"""The bodies of the API's answers; responses are encoded from these types, and so is the
OpenAPI document."""

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


class Answer(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """A body with exactly its members; those that are UNSET are left out."""


class TokenTrend(Answer):
    """Tokens issued per UTC day, oldest first, today last, silent days as zero."""

    point: ClassVar = DayCount
    file: ClassVar = "tokens"

    tenant_id: Id
    days: Annotated[int, msgspec.Meta(ge=1, le=MAX_DAYS)]
    data: list[DayCount]


class AgentActivity(Answer):
    """Tokens issued per day of week and hour (UTC), ordered so, without empty cells."""

    point: ClassVar = HourCount
    file: ClassVar = "activity"

    tenant_id: Id
    data: list[HourCount]


class AgentUsage(Answer):
    """Tokens issued per agent in one month, most first, then by id."""

    point: ClassVar = AgentCount
    file: ClassVar = "agents"

    tenant_id: Id
    month: Month
    data: list[AgentCount]


class AgentDirectory(Answer):
    """Agents that have a name or were issued tokens, by id. ``nextCursor`` is the ``cursor`` of
    the next page, null on the last."""

    tenant_id: Id
    data: list[Agent]
    next_cursor: str | None


class AgentName(Answer):
    """What an agent is called from now on."""

    agent_id: Id
    name: Name | None


class NamesReceipt(Answer):
    """How many names were received, and stored."""

    received: Count


# Reports, whose points can be had as a file as well.
Tabular = TokenTrend | AgentActivity | AgentUsage


class Receipt(Answer):
    """What became of a batch; ``rejected`` is there when bad events were to be skipped."""

    received: Count
    accepted: Count
    duplicates: Count
    rejected: list[EventError] | UnsetType = UNSET


class Health(Answer):
    """``ok``: the process answers. ``ready``: so does the database, with the right schema."""

    status: Literal["ok", "ready"]


class Problem(Answer):
    """Any error. What ``details`` holds depends on the code."""

    code: str
    message: str
    details: dict[str, Any] | UnsetType = UNSET
