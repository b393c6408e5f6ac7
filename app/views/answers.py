"""The bodies of the API's answers; responses are encoded from these types, and so is the
OpenAPI document."""

from typing import Annotated, Any

import msgspec

from app.events import EventError
from app.queries import AgentCount, DayCount, HourCount

Month = Annotated[str, msgspec.Meta(pattern="^[0-9]{4}-(0[1-9]|1[0-2])$")]


class Answer(msgspec.Struct, rename="camel", omit_defaults=True):
    """A body; members with a default are left out while they have it."""


class TokenTrend(Answer):
    """Tokens issued per UTC day, oldest first, silent days as zero."""

    tenant_id: str
    days: int
    data: list[DayCount]


class AgentActivity(Answer):
    """Tokens issued per day of week and hour (UTC), ordered so, without empty cells."""

    tenant_id: str
    data: list[HourCount]


class AgentUsage(Answer):
    """Tokens issued per agent in one month, most first, then by id."""

    tenant_id: str
    month: Month
    data: list[AgentCount]


class Receipt(Answer):
    """What became of a batch; ``rejected`` is there when bad events were to be skipped."""

    received: int
    accepted: int
    duplicates: int
    rejected: list[EventError] | msgspec.UnsetType = msgspec.UNSET


class Health(Answer):
    """``ok``: the process answers. ``ready``: so does the database."""

    status: str


class Problem(Answer):
    """Any error. ``details`` depends on the code."""

    code: str
    message: str
    details: dict[str, Any] | None = None
