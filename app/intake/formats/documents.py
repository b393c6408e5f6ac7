"""JSON texts of a log: one record a line, or documents that contain arrays of records.

A document may be on one line or on many, and its size does not matter for memory: its records are
found one after the other in a window that moves over the text.
"""

import json
import re
from collections import deque
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any, NamedTuple, NoReturn

import msgspec

from app.intake.events import InvalidEvent
from app.intake.files import BOM, skip_line
from app.intake.formats.base import Options
from app.intake.formats.paths import Every, Member, Step
from app.intake.json_values import Incomplete, end_of_invalid_value, end_of_value

# A batch: the steps to an array of records. Every is an array on the way.
Batch = tuple[Step, ...]

# A record's first line; its text, or None if its value is to be written again; and its value: an
# object, an error, or None for text that does not look like JSON.
Found = tuple[int, bytes | None, dict[str, Any] | InvalidEvent | None]

FIRST_BYTES, WINDOW_BYTES = 512, 64 * 1024
MAX_DEPTH = 8
_CUT = "the JSON ends in the middle"
UNREADABLE = "unreadable; "
_DECODER = msgspec.json.Decoder()
_SPACE = re.compile(rb"[ \t\r\n]*+")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_STRING_REST = re.compile(rb'[^"\\\n]*+(?:\\.[^"\\\n]*+)*+')  # no text has a line break
_JSON_OR_SPACE = (b"{", b"[", b" ", b"\t", b"\r", b"\n", BOM[:1])
_MARK = re.compile(rb'["\[\]{},]')
# An object with a member, perhaps in arrays. No line of a text log begins so.
_JSON_START = re.compile(rb'\s*+(?:\[\s*+)*+\{\s*+"')


def read_texts(
    lines: Iterator[bytes], options: Options, batches: Sequence[Batch]
) -> Iterator[Found]:
    """The records of lines, which have their ends. Blank lines are skipped.

    A line above the limit comes in several parts, of which only the last has the line's end.
    """
    again: deque[bytes] = deque()
    number = 0
    limit = options.max_bytes
    while line := again.popleft() if again else next(lines, b""):
        number += 1
        if len(line) <= limit and line[-1:] == b"\n":
            if line[:1] == b"{":
                value = decode_record(line)
                if (records := _simple(value, batches)) is not None:
                    for one in records:
                        yield number, line if one is value else None, one
                    continue
            elif line[:1] not in _JSON_OR_SPACE:
                yield number, line, None
                continue
        line = line.removeprefix(BOM)  # files that were joined have it in the middle
        document = _Document(line, _chained(again, lines), number, options, batches)
        yield from document.all()
        number = document.line - 1
        again.extendleft(reversed(document.rest()))


def _chained(again: deque[bytes], lines: Iterator[bytes]) -> Iterator[bytes]:
    while again:
        yield again.popleft()
    for line in lines:  # noqa: UP028 - "yield from" would close the lines with this generator
        yield line


class NotJson(InvalidEvent):
    """The error for a line that is no JSON, so it may be a line of a text log."""


def looks_like_json(text: bytes) -> bool:
    """Whether a text is meant to be a JSON object or an array of these, valid or not."""
    return _JSON_START.match(text) is not None


def too_long(limit: int) -> InvalidEvent:
    """The error for a record above the limit."""
    return InvalidEvent("", f"{UNREADABLE}it is larger than {limit} bytes (MAX_EVENT_BYTES)")


def decode_record(text: bytes) -> dict[str, Any] | InvalidEvent:
    """The object that a JSON text is, or why it is none."""
    try:
        value = _DECODER.decode(text)
    except UnicodeDecodeError:
        return InvalidEvent("", f"{UNREADABLE}it is not valid UTF-8")
    except msgspec.ValidationError:
        value = _decode_leniently(text)
    except msgspec.DecodeError as error:
        value = _decode_leniently(text) if _SURROGATE.search(text) else None
        if value is None:
            return InvalidEvent("", f"{UNREADABLE}{_problem(error)}")
    except RecursionError:
        return InvalidEvent("", f"{UNREADABLE}it is nested too deeply")
    if type(value) is not dict:
        return InvalidEvent("", f"{UNREADABLE}it is not a JSON object")
    return value


def text_of(value: dict[str, Any]) -> bytes:
    """The JSON text of a record."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:  # a lone surrogate
        return json.dumps(value).encode()


def _problem(error: msgspec.DecodeError) -> str:
    if str(error) == "Input data was truncated":
        return "its JSON ends in the middle"
    return str(error)


def _decode_leniently(text: bytes) -> Any:
    """A JSON text with a lone surrogate or a number that is too large, in whichever member."""

    def refuse(_constant: str) -> NoReturn:
        raise ValueError("not JSON")

    try:
        return json.loads(text.decode(), parse_constant=refuse)
    except (ValueError, RecursionError):
        return None


class _Broken(Exception):  # noqa: N818 - it is a state of the document; the reader names it
    """The document cannot be read further, with the reason."""


class _Large(NamedTuple):
    """A value above the limit of a record."""


class _Document:
    """A JSON array or object that begins in a line.

    Attributes:
        line: the number of the line at the current position.
    """

    def __init__(
        self,
        first: bytes,
        lines: Iterator[bytes],
        number: int,
        options: Options,
        batches: Sequence[Batch],
    ) -> None:
        self.line = number
        self._began = number
        self._lines = lines
        self._first = self._data = first
        self._at = 0
        self._limit = options.max_bytes
        self._room = options.max_document_bytes - len(first)
        self._batches = batches
        self._is_sure = False  # whether records of the document have been found
        self._step = FIRST_BYTES
        self._has_batch = False
        self._is_cut = False  # whether the text ended within a value
        self._depth = 0  # of arrays around the position

    def all(self) -> Iterator[Found]:
        """The records of the line or document. Afterwards the position is behind it."""
        text = self._first.strip()
        if not text or text == b"[]" or text[:1] not in (b"{", b"["):
            yield from self._line(text)
        else:
            yield from self._document()

    def _line(self, text: bytes) -> Iterator[Found]:
        """A line that does not look like JSON, put together from its parts; none if it is blank."""
        line = self._first
        while line[-1:] != b"\n" and len(line) <= self._limit and (part := next(self._lines, b"")):
            line += part
        text = line.strip()
        if skip_line(line, self._lines) or len(text) > self._limit:
            yield self._began, b"", too_long(self._limit)
        elif text and text != b"[]":
            yield self._began, line, None
        self._data, self._at, self.line = b"", 0, self._began + 1

    def _document(self) -> Iterator[Found]:
        try:
            yield from self._value(nested=False)
        except _Broken as broken:
            if not self._is_sure:
                yield self._refused_line(str(broken))
                return
            problem = InvalidEvent("", f"{UNREADABLE}{broken}")
            problem.unread = "line" if self.line == self._began else "file"
            yield self.line, b"", problem
            self._give_up()

    def rest(self) -> list[bytes]:
        """The lines that were read and not used."""
        return BytesIO(self._data[self._at :]).readlines()

    def _refused_line(self, problem: str) -> Found:
        """The error for the first line alone; the position is behind it.

        No record was found, so nothing of the text has been dropped.
        """
        self._at, self.line = 0, self._began
        end = self._data.find(b"\n") + 1
        if end or len(self._data) <= self._limit:
            end = end or len(self._data)
            text = self._data[:end]
            self._move(end)
            value = decode_record(text)
            if isinstance(value, dict) and _wraps(value, self._batches):
                value = InvalidEvent("", f"{UNREADABLE}{problem}")
            elif isinstance(value, InvalidEvent) and not looks_like_json(text):
                value = NotJson("", value.message)
            return self._began, text, value
        self._skip_to_line_end()
        return self._began, b"", too_long(self._limit)

    def _give_up(self) -> None:
        """Skip what cannot be read: the rest of the line, or of the file if there are several."""
        if self.line == self._began:
            self._skip_to_line_end()
            return
        for _ in self._lines:
            pass
        self._at = len(self._data)

    def _skip_to_line_end(self) -> None:
        while not (end := self._data.find(b"\n", self._at) + 1):
            self._data, self._at = next(self._lines, b""), 0
            if not self._data:
                return
        self._move(end)

    # The window.

    def _move(self, to: int) -> None:
        self.line += self._data.count(b"\n", self._at, to)
        self._at = to

    def _grow(self) -> bool:
        """Read more lines; return whether there were any."""
        # Beyond the limit of a record, the text is a document. To keep all of it would take a time
        # that is quadratic in its size.
        if self._at > self._limit:
            self._is_sure = True
        wanted = max(len(self._data) - self._at, self._step if self._is_sure else 1)
        self._step = min(2 * self._step, WINDOW_BYTES)
        parts, size = [], 0
        while size < wanted and (part := next(self._lines, b"")):
            parts.append(part)
            size += len(part)
        if self._is_sure:
            self._data, self._at = self._data[self._at :], 0
        self._data += b"".join(parts)
        self._room -= size
        if self._room < 0:
            self._is_sure = True
            raise _Broken(
                "the document is too large (MAX_DOCUMENT_BYTES), so the rest of it is not read"
            )
        return bool(parts)

    def _next(self) -> bytes:
        """The next byte that is not white space; empty at the end. The position moves to it."""
        while True:
            self._move(_SPACE.match(self._data, self._at).end())  # type: ignore[union-attr]  # it matches always
            if self._at < len(self._data):
                return self._data[self._at : self._at + 1]
            if not self._grow():
                return b""

    def _expect(self, mark: bytes) -> None:
        if self._next() != mark:
            raise self._broken()
        self._move(self._at + 1)

    def _broken(self) -> _Broken:
        if self._next():
            return _Broken("the JSON is malformed here, so the rest of it is not read")
        return _Broken(_CUT)

    def _end(self) -> int | _Large | None:
        """The end of the value at the position; ``None`` if it is invalid."""
        while True:
            size = len(self._data) - self._at
            try:
                end = end_of_value(self._data, self._at)
            except Incomplete:
                pass
            else:
                is_number = end is not None and self._data[end - 1 : end].isalnum()
                if not (end == len(self._data) and is_number and self._grow()):
                    return end
                continue
            if size > self._limit:
                return _Large()
            if not self._grow():
                self._is_cut = True
                return None  # or it has a lone surrogate, which looks so to the decoder

    # The values.

    def _value(self, *, nested: bool) -> Iterator[Found]:
        """A record, or an array or object that contains records."""
        mark = self._next()
        if mark == b"[" and not nested:
            yield from self._array([])
        elif mark == b"{":
            yield from self._object_or_record(nested=nested)
        elif not self._is_sure:
            raise _Broken("it is not a JSON object")
        else:
            yield from self._record()

    def _object_or_record(self, *, nested: bool) -> Iterator[Found]:
        end = self._end()
        text = self._data[self._at : end].rstrip() if isinstance(end, int) else b""
        if isinstance(end, int) and len(text) <= self._limit:
            value = decode_record(text)
            self._is_sure = self._is_sure or nested
            is_shallow = self._depth < MAX_DEPTH
            if is_shallow and isinstance(value, dict) and _wraps(value, self._batches):
                yield from self._members(self._batches)
            else:
                number = self.line
                self._move(end)
                yield number, text, value
        elif self._batches and self._depth < MAX_DEPTH and not (nested and end is None):
            self._has_batch, number = False, self.line
            yield from self._members(self._batches)
            if not self._has_batch:
                self._is_sure = self._is_sure or nested  # the error must not be found twice
                yield number, b"", too_long(self._limit)
            self._has_batch = True  # of the array around this object
        elif nested or (end is not None and not self._is_on_one_line()):
            self._is_sure = True
            yield from self._record()
        else:
            raise _Broken("it is not valid JSON")  # or too large, which its line says

    def _is_on_one_line(self) -> bool:
        """Whether a text without any line break up to the limit may not have any behind it."""
        return self.line == self._began and b"\n" not in self._first[: self._limit]

    def _record(self) -> Iterator[Found]:
        """An element of an array that is a record, or should be one."""
        number, end = self.line, self._end()
        if isinstance(end, _Large):
            self._skip_large()
            yield number, b"", too_long(self._limit)
            return
        if end is None:
            end = self._end_of_invalid()
        text = self._data[self._at : end].rstrip()
        value = decode_record(text) if len(text) <= self._limit else too_long(self._limit)
        if self._is_cut and isinstance(value, InvalidEvent):
            raise _Broken(_CUT)
        self._move(end)
        yield number, text if len(text) <= self._limit else b"", value

    def _end_of_invalid(self) -> int:
        while True:
            most = self._limit + 2
            end = end_of_invalid_value(self._data, self._at, most, iter(range(most)))
            if end < len(self._data):
                return end
            if len(self._data) - self._at > most:
                raise self._broken()
            if not self._grow():
                raise _Broken(_CUT)

    def _array(self, inner: Sequence[Batch]) -> Iterator[Found]:
        """Records, or objects around arrays of records: ``inner`` are the steps within these."""
        self._has_batch = True
        self._depth += 1
        self._expect(b"[")
        if self._next() == b"]":
            self._move(self._at + 1)
            self._depth -= 1
            return
        while True:
            if not inner:
                yield from self._value(nested=True)
            elif self._next() == b"{":
                yield from self._members(inner)
            else:
                self._skip()
            mark = self._next()
            if mark not in (b",", b"]"):
                raise self._broken()
            self._move(self._at + 1)
            if mark == b"]":
                self._depth -= 1
                return

    def _members(self, batches: Sequence[Batch]) -> Iterator[Found]:
        """An object's members: arrays of records are read, and all others are skipped."""
        self._expect(b"{")
        if self._next() == b"}":
            self._move(self._at + 1)
            return
        while True:
            name = self._name()
            inner = [
                batch[1:]
                for batch in batches
                if isinstance(batch[0], Member) and batch[0].name == name
            ]
            mark = self._next()
            if mark == b"{" and (objects := [one for one in inner if one]):
                yield from self._members(objects)
            elif mark == b"[" and (arrays := [one for one in inner if _is_array(one)]):
                yield from self._array([one[1:] for one in arrays if one])
            else:
                self._skip()
            mark = self._next()
            if mark not in (b",", b"}"):
                raise self._broken()
            self._move(self._at + 1)
            if mark == b"}":
                return

    def _name(self) -> str:
        if self._next() != b'"':
            raise self._broken()
        end = self._end()
        if not isinstance(end, int):
            raise self._broken()
        try:
            name = _DECODER.decode(self._data[self._at : end])
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise self._broken() from None
        self._move(end)
        self._expect(b":")
        return str(name)

    def _skip(self) -> None:
        end = self._end()
        if isinstance(end, _Large):
            self._skip_large()
        elif end is None and not self._is_sure:
            raise _Broken("it is not valid JSON")  # or the value would be searched in other lines
        else:
            self._move(self._end_of_invalid() if end is None else end)

    def _skip_large(self) -> None:
        """Move behind a value of any size, whose text is not kept."""
        self._is_sure = True
        depth = 0
        while True:
            line_end = self._data.find(b"\n", self._at) if self._is_on_one_line() else -1
            stop = len(self._data) if line_end < 0 else line_end
            mark = _MARK.search(self._data, self._at, stop)
            if mark is None:
                self._move(stop)
                if line_end >= 0 or not self._grow():
                    raise _Broken(_CUT)
                continue
            sign = mark[0]
            if depth == 0 and sign in b",]}":
                self._move(mark.start())
                return
            self._move(mark.end())
            if sign == b'"':
                self._skip_string()
            elif sign != b",":
                depth += 1 if sign in b"[{" else -1
            if depth == 0 and sign != b",":
                return

    def _skip_string(self) -> None:
        while True:
            self._move(_STRING_REST.match(self._data, self._at).end())  # type: ignore[union-attr]  # it matches always
            sign = self._data[self._at : self._at + 1]
            if sign == b'"':
                self._move(self._at + 1)
                return
            if sign == b"\n" or not self._grow():
                raise _Broken(_CUT)


def _is_array(batch: Batch) -> bool:
    """Whether the value behind the steps so far is to be an array."""
    return not batch or isinstance(batch[0], Every)


def _wraps(value: dict[str, Any], batches: Sequence[Batch]) -> bool:
    """Whether an object is around arrays of records."""
    return any(_has_array(value, batch) for batch in batches)


def _simple(
    value: dict[str, Any] | InvalidEvent, batches: Sequence[Batch]
) -> Sequence[dict[str, Any]] | None:
    """A record, or the records in a small object around arrays; ``None`` for a closer look."""
    if type(value) is not dict:
        return None
    if not (batches and _wraps(value, batches)):
        return (value,)
    found: list[Any] = []
    for batch in batches:
        values: list[Any] = [value]
        for step in (*batch, Every()):
            if isinstance(step, Every):
                values = [one for many in values if type(many) is list for one in many]
            elif isinstance(step, Member):
                values = [one.get(step.name) for one in values if type(one) is dict]
        found += values
    # What is no object, or is around arrays itself, is read as text.
    if any(type(one) is not dict or _wraps(one, batches) for one in found):
        return None
    return found


def _has_array(value: Any, batch: Batch) -> bool:
    for step in batch:
        if not isinstance(step, Member):
            break
        if type(value) is not dict:
            return False
        value = value.get(step.name)
    return type(value) is list
