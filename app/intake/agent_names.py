"""Names as callers set them: JSON in, checked names out. No storage here.

An entry is held to the same rules of JSON as an event, and its errors are told in the same form.
"""

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import msgspec

from app.errors import ValidationError
from app.ids import ID_PATTERN, Id
from app.intake.events import Batch, InvalidEvent, decode_event, prepared, refuse_nul, wrong_member

# As ID_PATTERN, and not white space alone, which the check of it says in words.
_SCHEMA_PATTERN = (
    r"^[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$"
)

Name = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=255,
        pattern=ID_PATTERN,
        description="1 to 255 code points without control characters, not white space alone",
        extra_json_schema={"pattern": _SCHEMA_PATTERN},
    ),
]


@prepared
class NameBody(msgspec.Struct, rename="camel"):
    """What an agent is called; null takes its name back. Other members are ignored."""

    name: Name | None


@prepared
class AgentBody(msgspec.Struct, rename="camel"):
    """An agent, and what it is called; null takes its name back. Other members are ignored."""

    agent_id: Id
    name: Name | None


B = TypeVar("B", NameBody, AgentBody)


def parse_name(item: bytes) -> str | None:
    """The name in one agent's body.

    Raises:
        ValidationError: it has none, or not one that can be shown.
    """
    refused = Batch()
    try:
        return _parse(item, NameBody).name
    except InvalidEvent as problem:
        refused.reject(0, problem)
        raise _refusal(refused, 1) from None


def parse_names(items: Sequence[bytes]) -> dict[str, str | None]:
    """Names by agent, from one JSON text each; of several for one agent the last.

    Raises:
        ValidationError: some are wrong; ``details`` has where and why.
    """
    names: dict[str, str | None] = {}
    refused = Batch()
    for index, item in enumerate(items):
        try:
            agent = _parse(item, AgentBody)
        except InvalidEvent as problem:
            refused.reject(index, problem)
        else:
            names[agent.agent_id] = agent.name
    if refused.rejected:
        raise _refusal(refused, len(items))
    return names


def _parse(item: bytes, kind: type[B]) -> B:
    value: Any = decode_event(item, ("agentId", "name"))
    try:
        body = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise wrong_member(error) from None
    if body.name is not None and not body.name.strip():
        raise InvalidEvent("name", "is blank")
    refuse_nul(item)
    return body


def _refusal(refused: Batch, received: int) -> ValidationError:
    return ValidationError(
        f"{refused.rejected} of {received} names refused, none stored", {"errors": refused.errors}
    )
