"""The mapping language: a TOML file says where a provider's records have what an event needs."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from app.errors import ValidationError
from app.intake.events import prepared
from app.intake.formats.base import NATIVE_NAMES
from app.intake.formats.conditions import Condition

_NAME = r"^[a-z0-9][a-z0-9._-]{0,62}$"


def _about(description: str) -> msgspec.Meta:
    return msgspec.Meta(description=description)


Paths = str | Annotated[list[str], msgspec.Meta(min_length=1)]


class Join(msgspec.Struct, forbid_unknown_fields=True):
    """An id of several values."""

    join: Annotated[
        list[str],
        msgspec.Meta(min_length=2, description="paths; their values are joined by a space"),
    ]


class Time(msgspec.Struct, forbid_unknown_fields=True, rename={"or_": "or"}):
    """Where the time of the issuance is, and how it is written."""

    path: Annotated[Paths, _about("the first path that has a value")]
    unit: Annotated[
        Literal["s", "ms", "us", "ns"] | None,
        _about("the unit of a number since 1970; without it, a date and time (RFC 3339)"),
    ] = None
    or_: Annotated["Time | None", _about("another time, if no path has a value")] = None


@prepared
class Mapping(msgspec.Struct, forbid_unknown_fields=True, rename={"is_": "is"}):
    """A format: where its records have what an event needs."""

    issued: Annotated[Condition, _about("the records that are issued tokens")]
    id: Annotated[
        str | Join | Annotated[list[str | Join], msgspec.Meta(min_length=1)],
        _about("the token's or event's id: the first that has a value"),
    ]
    agent: Annotated[Paths, _about("the client's id: the first path that has a value")]
    time: Annotated[
        str | Time | Annotated[list[str], msgspec.Meta(min_length=1)],
        _about("the time of the issuance"),
    ]
    is_: Annotated[
        Condition | None, _about("the records of this format; all others are skipped")
    ] = None
    failed: Annotated[Condition | None, _about("the records of refused requests")] = None
    organization: Annotated[
        str | list[str], _about("the organization: the first path that has a value")
    ] = []
    name: Annotated[str | list[str], _about("the agent's name")] = []
    organizations: Annotated[
        dict[str, str | dict[str, str]],
        _about("your organization for each of the provider's ids: default, names, agents"),
    ] = {}
    batches: Annotated[
        list[str], _about("paths of arrays of records, in a JSON object that wraps them")
    ] = []
    unwrap: Annotated[
        list[str], _about("paths of an object that is the record, in an envelope")
    ] = []
    unwind: Annotated[
        str | None,
        _about("an array in a record; each element makes a record, in which it replaces the array"),
    ] = None
    columns: Annotated[
        list[str], _about("columns that the header of a CSV file has; cells are text")
    ] = []
    text: Annotated[
        str | list[str],
        _about("regular expressions with named groups, for lines that are not JSON"),
    ] = []
    embedded_json: Annotated[
        str | None,
        _about("a group of text that is the record itself, if its text is a JSON object"),
    ] = None
    pairs: Annotated[
        list[str] | dict[str, list[str]],
        _about(
            "members whose text is name=value pairs; the first of a name counts. A table names the"
            " pairs that come first, in their order; elsewhere these are ignored"
        ),
    ] = []
    json_text: Annotated[list[str], _about("members whose text is a JSON object")] = []


class MappingError(ValidationError):
    """A mapping file is invalid; the message has file, line and reason."""


class Source:
    """The text of a mapping file, in which an error finds its line."""

    def __init__(self, path: Path, text: str, table: str) -> None:
        self.path = path
        self._lines = text.splitlines()
        self._table = table

    def error(self, member: str, reason: str) -> MappingError:
        """An error about a member of the format."""
        return MappingError(f"{self.path}:{self._line(member, reason)}: {member}: {reason}")

    def _line(self, member: str, reason: str) -> int:
        """The number of the line: of the text that the reason quotes, or of the member."""
        lines = [number for number, name in self._members() if name == member]
        quoted = re.findall(r"`([^`]+)`|'([^']+)'", reason)
        for word in [one or other for one, other in quoted]:
            for number in lines:
                if word in self._lines[number - 1]:
                    return number
        tables = (number for number, line in enumerate(self._lines, 1) if self._is_header(line))
        return lines[0] if lines else next(tables, 1)

    def _is_header(self, line: str) -> bool:
        return bool(_HEADER.match(line)) and _unquoted(line.strip("[] \t")) == self._table

    def _members(self) -> Iterator[tuple[int, str]]:
        """Each line of the format's table, with the member that it belongs to."""
        inside, member = False, ""
        for number, line in enumerate(self._lines, 1):
            if header := _HEADER.match(line):
                table, _, rest = header[1].strip().rpartition(".")
                inside = self._table in (_unquoted(header[1]), _unquoted(table))
                member = _unquoted(rest) if inside and table else ""
                depth_of_table = bool(member)
            elif inside and not depth_of_table and (key := _KEY.match(line)):
                member = _unquoted(key[1])
            if inside and member:
                yield number, member


_HEADER = re.compile(r"\s*\[([^\[\]=,]+)\]\s*(?:#.*)?$")
_KEY = re.compile(r"""\s*([A-Za-z0-9_-]+|"[^"]+"|'[^']+')\s*[.=]""")


def _unquoted(text: str) -> str:
    return text.strip().strip("\"'")


def read_mapping(path: Path, name: str | None = None) -> tuple[str, Mapping, Source]:
    """The name of a format, what its file says, and the file's text for errors.

    Args:
        name: the format to take, if the file describes several.

    Raises:
        MappingError: the file cannot be read, or is not a mapping.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
        tables = tomllib.loads(text)
    except OSError as error:
        raise MappingError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise MappingError(f"{path}: is not UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise MappingError(f"{path}:{_toml_problem(error)}") from None
    name = _chosen(path, tables, name)
    source = Source(path, text, name)
    return name, _mapping(tables[name], source), source


def _toml_problem(error: Exception) -> str:
    line = re.search(r"\(at line (\d+), column \d+\)", str(error))
    reason = re.sub(r" \(at .*\)", "", str(error)) or "is nested too deeply"
    return f"{line[1]}: {reason}" if line else f" {reason}"


def _chosen(path: Path, tables: dict[str, Any], name: str | None) -> str:
    named = [one for one, table in tables.items() if isinstance(table, dict)]
    if len(named) < len(tables) or not named:
        raise MappingError(
            f"{path}:1: a mapping is a table below the name of its format; begin with a line such"
            " as [my-provider]"
        )
    if name is None and len(named) > 1:
        raise MappingError(f"{path}: has several formats; name one of {', '.join(named)}")
    name = name or named[0]
    if name not in named:
        raise MappingError(f"{path}: has no format {name}, but {', '.join(named)}")
    if name in NATIVE_NAMES:
        raise MappingError(f"{path}: {name} is the name of this service's own format")
    if not re.match(_NAME, name):
        raise MappingError(
            f"{path}:1: the name of a format needs lower-case letters, digits, dots and hyphens"
        )
    return name


def _mapping(table: dict[str, Any], source: Source) -> Mapping:
    known = {one.encode_name: one for one in msgspec.structs.fields(Mapping)}
    for member, value in table.items():
        if member not in known:
            raise source.error(member, f"is unknown; the members are {', '.join(known)}")
        try:
            msgspec.convert(value, known[member].type)
        except msgspec.ValidationError as error:
            raise source.error(member, _explained(error)) from None
    missing = [
        one for one, known_field in known.items() if known_field.required and one not in table
    ]
    if missing:
        raise source.error(missing[0], "is required")
    return msgspec.convert(table, Mapping)


def _explained(error: msgspec.ValidationError) -> str:
    """msgspec's message in the words of TOML."""
    text = str(error).partition(" - at ")[0]
    for word, plain in (
        ("object", "table"),
        ("array", "list"),
        ("`str", "`text"),
        ("null", "none"),
    ):
        text = text.replace(word, plain)
    text = text.replace("Object contains unknown field", "has the unknown member")
    if "unknown" in text:
        text += "; a path with dots needs quotation marks"
    return text[0].lower() + text[1:]


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a mapping file, for editors."""
    (schema,), components = msgspec.json.schema_components([Mapping], ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A mapping of a provider's log",
        "description": "One table for each format, below the format's name",
        "type": "object",
        "minProperties": 1,
        "patternProperties": {_NAME: schema},
        "additionalProperties": False,
        "$defs": components,
    }
