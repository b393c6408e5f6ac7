"""Formats that a mapping file describes: compiled once, then applied to each record."""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from app.ids import ID_PATTERN
from app.intake.events import InvalidEvent, Members
from app.intake.formats import language
from app.intake.formats.base import (
    FAILED,
    NO_ISSUANCE,
    OTHER_FORMAT,
    Format,
    Header,
    Options,
    Record,
    Skipped,
)
from app.intake.formats.conditions import Condition, Holds, compile_condition, has_value
from app.intake.formats.documents import (
    UNREADABLE,
    Batch,
    NotJson,
    decode_record,
    looks_like_json,
    read_texts,
    text_of,
)
from app.intake.formats.paths import Every, Member, getter, parse_path
from app.intake.formats.text import ReadPairs, compile_pairs, compile_texts, without_log_header
from app.intake.formats.times import ToInstant, instant_of_number, instant_of_text
from app.intake.organizations import Organizations, read_organizations
from app.intake.records import DelimitedRecords, best_separator

T = TypeVar("T")
MAX_ID = 255
# What databases write into CSV for a cell without a value.
_NULLS = ("NULL", "\\N")

Outcome = Members | Skipped | InvalidEvent
Check = Callable[[dict[str, Any]], Outcome]
TextOf = Callable[[Any], str | None]
InstantOf = Callable[[Any, ZoneInfo | None], datetime | None]

_IS_PRINTABLE = re.compile(ID_PATTERN).match
_OTHER_FORMAT, _FAILED, _NO_ISSUANCE = Skipped(OTHER_FORMAT), Skipped(FAILED), Skipped(NO_ISSUANCE)


def load_mapping(path: Path, name: str | None = None) -> Format:
    """The format that a mapping file describes.

    Args:
        name: the format to take, if the file describes several.

    Raises:
        MappingError: the file cannot be read or is invalid; the message has line and reason.
    """
    name, mapping, source = language.read_mapping(path, name)
    return Format(name, _Compiled(mapping, source).read)


class _Compiled:
    """A mapping, compiled to functions."""

    def __init__(self, mapping: language.Mapping, source: language.Source) -> None:
        def compiled(member: str, compile_one: Callable[[Any], T], value: Any) -> T:
            try:
                return compile_one(value)
            except ValueError as error:
                raise source.error(member, str(error)) from None

        self._is = compiled("is", _condition, mapping.is_)
        self._failed = compiled("failed", _condition, mapping.failed)
        self._issued = compiled("issued", compile_condition, mapping.issued)
        self._id = compiled("id", _id, mapping.id)
        self._agent = compiled("agent", _first_text, mapping.agent)
        self._organization = compiled("organization", _first_text, mapping.organization)
        self._name = compiled("name", _first_text, mapping.name)
        self._instant = compiled("time", _time, mapping.time)
        self._organizations = compiled("organizations", _table, mapping.organizations)
        self._batches = compiled("batches", _batches, mapping.batches)
        self._unwrap = compiled("unwrap", _each(getter), mapping.unwrap)
        self._unwind = mapping.unwind
        self._columns = frozenset(mapping.columns)
        texts = _listed(mapping.text)
        self._text = compiled("text", compile_texts, texts) if texts else None
        self._embedded = mapping.embedded_json
        self._pairs = _pairs(mapping.pairs)
        self._json_text = mapping.json_text
        self._absent = {
            "id": _absent("no id", mapping.id),
            "agentId": _absent("no agent", mapping.agent),
            "issuedAt": _absent("no time", mapping.time),
        }

    def read(self, lines: Iterator[bytes], options: Options) -> Iterator[Record]:
        """The records of lines; see :class:`Format`."""
        check = self._checker(options)
        if self._columns:
            blank: list[bytes] = []
            while (line := next(lines, b"")) and not line.strip():
                blank.append(line)
            lines = chain((*blank, line), lines)
            separator, names = best_separator(line, self._columns)
            if self._header(names):
                yield from self._rows(lines, separator, options, check)
                return
        for number, text, value in read_texts(lines, options, self._batches):
            if value is None or (self._text and isinstance(value, NotJson)):
                value = self._record_of_text(text or b"")  # noqa: PLW2901
            if isinstance(value, InvalidEvent):
                yield number, value, text or b""
            elif self._unwind is None:
                # Written before the check, which replaces texts by what they say.
                text = text_of(value) if text is None else text  # noqa: PLW2901
                yield number, check(value), text
            else:
                yield from self._unwound(number, text, value, check)

    def _record_of_text(self, line: bytes) -> dict[str, Any] | InvalidEvent:
        """The record of a line that does not begin with JSON.

        JSON that is cut or malformed is an error, and not text: the event in it would be lost.
        """
        line = without_log_header(line).strip(b"\r\n")
        if looks_like_json(line):
            return decode_record(line)
        if self._text is None:
            return InvalidEvent("", f"{UNREADABLE}it is not a JSON object")
        # Invalid UTF-8 becomes a lone surrogate, which no id can have.
        found = self._text(line.decode(errors="surrogateescape"))
        if found is None:
            return InvalidEvent("", f"{UNREADABLE}no text of the mapping matches it")
        if self._embedded is not None:
            inner = (found.get(self._embedded) or "").encode(errors="surrogateescape")
            if looks_like_json(inner):
                return decode_record(inner)
        return found

    def _unwound(
        self, number: int, text: bytes | None, record: dict[str, Any], check: Check
    ) -> Iterator[Record]:
        """A record for each element of an array in the record, in which it replaces the array."""
        name = str(self._unwind)
        elements = record.get(name)
        if type(elements) is not list:
            yield number, check(record), text or text_of(record)
            return
        for element in elements:
            record[name] = element
            outcome = check(record)
            record[name] = [element]
            yield number, outcome, b"" if isinstance(outcome, Skipped) else text_of(record)

    def _rows(
        self, lines: Iterator[bytes], separator: str, options: Options, check: Check
    ) -> Iterator[Record]:
        """The rows of a CSV file. A row that names the columns again is a header, too."""
        records = DelimitedRecords(lines, options.max_bytes)
        records.separator = separator
        header: list[str] = []
        one = min(self._columns)
        for cells in records:
            outcome: Outcome | Header
            if isinstance(cells, InvalidEvent):
                outcome = InvalidEvent("", f"{UNREADABLE}it {cells.message}")
            elif (not header or one in cells or one.upper() in cells) and (
                names := self._header(cells)
            ):
                header, outcome = names, Header()
            elif len(cells) != len(header):
                records.read_again()
                outcome = InvalidEvent(
                    "", f"{UNREADABLE}it has {len(cells)} cells, but the header has {len(header)}"
                )
            else:
                values = ["" if cell in _NULLS else cell for cell in cells]
                outcome = check(dict(zip(header, values, strict=True)))
            yield records.number, outcome, records.text()

    def _header(self, cells: list[str]) -> list[str] | None:
        """The names of columns, if cells are the header; in small letters if all are capitals."""
        names = [cell.strip(' "') for cell in cells]
        if all(name == name.upper() for name in names):
            names = [name.lower() for name in names]
        return names if self._columns <= set(names) else None

    def _checker(self, options: Options) -> Check:
        """A function from a record to its members, or why it is skipped or refused."""
        is_, failed, issued = self._is, self._failed, self._issued
        prepare = self._prepared if self._unwrap or self._pairs or self._json_text else None
        members = self._members(options)

        def check(record: dict[str, Any]) -> Outcome:
            try:
                if prepare is not None:
                    record = prepare(record)
                if is_ is not None and not is_(record):
                    return _OTHER_FORMAT
                if failed is not None and failed(record):
                    return _FAILED
                return members(record) if issued(record) else _NO_ISSUANCE
            except InvalidEvent as problem:
                return problem

        return check

    def _members(self, options: Options) -> Callable[[dict[str, Any]], Members]:
        """A function from the record of an issuance to its members; it raises InvalidEvent."""
        id_of, agent_of, name_of, instant_of = self._id, self._agent, self._name, self._instant
        tenant_of, absent, zone = self._tenant(options), self._absent, options.zone

        def members(record: dict[str, Any]) -> Members:
            event_id = id_of(record)
            if event_id is None:
                raise InvalidEvent("id", absent["id"])
            agent_id = agent_of(record)
            if agent_id is None:
                raise InvalidEvent("agentId", absent["agentId"])
            tenant_id = tenant_of(record, agent_id)
            if tenant_id is None:
                raise InvalidEvent("organizationId", _NO_ORGANIZATION)
            event_id = _short(event_id)
            if not (_is_plain(event_id) and _is_plain(agent_id) and _is_plain(tenant_id)):
                _refuse_unusable(event_id, agent_id, tenant_id)
            try:
                instant = instant_of(record, zone)
            except ValueError as error:
                raise InvalidEvent("issuedAt", f"unusable time; {error}") from None
            if instant is None:
                raise InvalidEvent("issuedAt", absent["issuedAt"])
            return event_id, agent_id, instant, tenant_id, _usable_name(name_of(record))

        return members

    def _tenant(self, options: Options) -> Callable[[Any, str], str | None]:
        if options.tenant_id is not None:
            tenant_id = options.tenant_id
            return lambda _record, _agent_id: tenant_id
        named = self._organization
        table = options.organizations or self._organizations
        if table is None:
            return lambda record, _agent_id: named(record)
        tenant_of = table.tenant_of
        return lambda record, agent_id: tenant_of(named(record), agent_id)

    def _prepared(self, record: dict[str, Any]) -> dict[str, Any]:
        """The record within its envelope, with its texts of JSON and of pairs read."""
        for unwrap in self._unwrap:
            inner = unwrap(record)
            if type(inner) is dict:
                record = inner
                break
        for member in self._json_text:
            text = record.get(member)
            if type(text) is str and has_value(text):
                value = decode_record(text.encode(errors="surrogatepass"))
                if isinstance(value, InvalidEvent):
                    raise InvalidEvent("", f"{UNREADABLE}{member} is not a JSON object")
                record[member] = value
        for member, read in self._pairs.items():
            text = record.get(member)
            if type(text) is str:
                record[member] = read(text)
        return record


def _absent(reason: str, where: Any) -> str:
    paths = ", ".join(dict.fromkeys(_paths_within(where)))
    return f"{reason}; the record has no text or whole number at {paths}"


def _paths_within(where: Any) -> Iterator[str]:
    if isinstance(where, str):
        yield where
    elif isinstance(where, list):
        for one in where:
            yield from _paths_within(one)
    elif isinstance(where, language.Join):
        yield " and ".join(where.join)
    elif isinstance(where, language.Time):
        yield from _paths_within(where.path)
        yield from _paths_within(where.or_)


_NO_ORGANIZATION = (
    "no organization; the record names none, so give --organization or a table of organizations"
)


def _short(event_id: str) -> str:
    """An event's id, or its SHA-256 if it is too long to be stored."""
    if len(event_id) <= MAX_ID:
        return event_id
    return hashlib.sha256(event_id.encode(errors="surrogatepass")).hexdigest()


def _is_plain(text: str) -> bool:
    """Whether a text can be stored as an id."""
    return len(text) <= MAX_ID and (
        (text.isascii() and text.isprintable()) or _IS_PRINTABLE(text) is not None
    )


def _refuse_unusable(event_id: str, agent_id: str, tenant_id: str) -> None:
    for field, reason, text in (
        ("id", "no id", event_id),
        ("agentId", "no agent", agent_id),
        ("organizationId", "no organization", tenant_id),
    ):
        if not _is_plain(text):
            raise InvalidEvent(
                field,
                f"{reason}; it has more than {MAX_ID} characters, or a control character",
            )


def _usable_name(name: str | None) -> str | None:
    """An agent's name; ``None`` if it cannot be stored, since the token counts without it."""
    return name if name is not None and not name.isspace() and _is_plain(name) else None


def _text(value: Any) -> str | None:
    """The text of an id: text itself, or a whole number; ``None`` if there is no value."""
    if type(value) is str:
        return value if value and value != "null" else None
    return str(value) if type(value) is int else None


def _listed(paths: str | Sequence[str]) -> Sequence[str]:
    return [paths] if isinstance(paths, str) else paths


def _first_text(paths: str | Sequence[str]) -> TextOf:
    gets = [getter(path) for path in _listed(paths)]
    if len(gets) == 1:
        only = gets[0]
        return lambda record: _text(only(record))

    def first(record: Any) -> str | None:
        for get in gets:
            value = get(record)
            if value is not None and (text := _text(value)) is not None:
                return text
        return None

    return first


def _id(where: str | language.Join | list[str | language.Join]) -> TextOf:
    if isinstance(where, language.Join):
        return _joined(where.join)
    if isinstance(where, str) or all(isinstance(one, str) for one in where):
        return _first_text(where)  # type: ignore[arg-type]  # all are text
    ids = [_id(one) for one in where]

    def first(record: Any) -> str | None:
        for one in ids:
            if (text := one(record)) is not None:
                return text
        return None

    return first


def _joined(paths: Sequence[str]) -> TextOf:
    texts = [_first_text(path) for path in paths]

    def joined(record: Any) -> str | None:
        parts: list[str] = []
        for text in texts:
            if (part := text(record)) is None:
                return None
            parts.append(part)
        return " ".join(parts)

    return joined


def _condition(condition: Condition | None) -> Holds | None:
    return None if condition is None else compile_condition(condition)


def _time(where: str | list[str] | language.Time) -> InstantOf:
    if not isinstance(where, language.Time):
        where = language.Time(path=where)
    gets = [getter(path) for path in _listed(where.path)]
    to_instant: ToInstant = instant_of_number(where.unit) if where.unit else instant_of_text
    other = _time(where.or_) if where.or_ else None

    def instant(record: Any, zone: ZoneInfo | None) -> datetime | None:
        for get in gets:
            value = get(record)
            if has_value(value):
                return to_instant(value, zone)
        return other(record, zone) if other else None

    return instant


def _table(table: dict[str, Any]) -> Organizations | None:
    return read_organizations(table) if table else None


def _each(one: Callable[[str], T]) -> Callable[[list[str]], list[T]]:
    return lambda given: [one(text) for text in given]


def _batches(paths: list[str]) -> list[Batch]:
    batches = [_batch(path) for path in paths]
    for one in batches:
        if any(other[: len(one) + 1] == (*one, Every()) for other in batches):
            raise ValueError("a batch is within the records of another batch; name one of them")
    return batches


def _batch(path: str) -> Batch:
    steps = parse_path(path)
    if not all(isinstance(step, Member | Every) for step in steps):
        raise ValueError(f"{path!r} has an element of an array; a batch is every element")
    if isinstance(steps[-1], Every):
        steps = steps[:-1]
    if any(one == other == Every() for one, other in pairwise((*steps, Every()))):
        raise ValueError(f"{path!r} must have the name of a member before each []")
    return steps


def _pairs(members: list[str] | dict[str, list[str]]) -> dict[str, ReadPairs]:
    if isinstance(members, list):
        members = {member: [] for member in members}
    return {member: compile_pairs(first) for member, first in members.items()}
