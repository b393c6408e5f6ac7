"""Bulk load in-process: the stored events, the refused ones and their lines."""

import codecs
import gzip
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from app.errors import ValidationError
from app.intake.events import Event
from app.intake.files import BOM, bounded_lines
from app.intake.importer import Imported, Importer, Refused
from app.intake.store import Stored
from app.storage.database import Database
from app.storage.tables import issuance_events
from tests.support.settings import EVENT_BYTES, NOW

MORNING = "2026-04-01T09:00:00Z"
HEADER = "id,organizationId,agentId,issuedAt"

Row = tuple[str, str, str, datetime]


@dataclass
class Outcome:
    totals: Imported
    refused: list[Refused]

    @property
    def lines(self) -> list[int]:
        return [refused.line for refused in self.refused]


@dataclass
class Loader:
    """Imports bytes as a file; what was stored is read back from the database."""

    database: Database

    def __call__(
        self,
        data: bytes | io.BufferedReader,
        file_format: str = "ndjson",
        *,
        organization: str | None = None,
        on_chunk: Callable[[], None] = lambda: None,
    ) -> Outcome:
        refused: list[Refused] = []
        importer = Importer(
            database=self.database,
            file_format=file_format,
            tenant_id=organization,
            max_bytes=EVENT_BYTES,
            clock=lambda: NOW,
            on_refused=refused.append,
            on_chunk=on_chunk,
        )
        is_stream = isinstance(data, io.BufferedReader)
        importer.load("events", data if is_stream else io.BufferedReader(io.BytesIO(data)))
        totals = importer.totals
        assert totals.received == totals.accepted + totals.duplicates + totals.refused
        assert totals.refused == len(refused)
        assert all(line.source == "events" and line.reason.strip() for line in refused)
        return Outcome(totals, refused)

    def stored(self) -> list[Row]:
        event = issuance_events.c
        rows = sa.select(event.tenant_id, event.event_id, event.agent_id, event.issued_at)
        with self.database.reading() as connection:
            return sorted((*row,) for row in connection.execute(rows))

    def ids(self) -> list[str]:
        return [row[1] for row in self.stored()]


@pytest.fixture
def load(database: Database) -> Loader:
    return Loader(database)


def event(event_id: str = "e1", **members: Any) -> dict[str, Any]:
    """An event's members; a member given as ``...`` is left out."""
    whole = {"id": event_id, "organizationId": "org-a", "agentId": "a1", "issuedAt": MORNING}
    return {name: value for name, value in (whole | members).items() if value is not ...}


def line(event_id: str = "e1", **members: Any) -> bytes:
    return json.dumps(event(event_id, **members)).encode() + b"\n"


def rows(*lines: str, header: str = HEADER, end: str = "\n") -> bytes:
    return end.join([header, *lines, ""]).encode()


def utf_16(data: bytes) -> bytes:
    """The same text in UTF-16, with a byte order mark."""
    return data.decode().encode("utf-16")


TWO = line("e1") + line("e2")
UTF_16_BE = codecs.BOM_UTF16_BE + TWO.decode().encode("utf-16-be")
ROWS = [f"e1,org-a,a1,{MORNING}", f"e2,org-a,a1,{MORNING}"]
REORDERED = rows(
    f"{MORNING},ignored,e1,a1,org-a",
    f'{MORNING},"a, ""b""\nc",e2,a1,org-a',
    header="issuedAt,note,id,agentId,organizationId",
)


@pytest.mark.parametrize(
    ("data", "file_format"),
    [
        pytest.param(TWO, "ndjson", id="ndjson"),
        pytest.param(TWO.replace(b"\n", b"\r\n"), "ndjson", id="CRLF"),
        pytest.param(TWO.rstrip(), "ndjson", id="no last newline"),
        pytest.param(TWO.replace(b"\n", b"\n\n  \n\r\n"), "ndjson", id="blank lines"),
        pytest.param(BOM + TWO, "ndjson", id="BOM"),
        pytest.param(gzip.compress(TWO), "ndjson", id="gzip"),
        pytest.param(gzip.compress(BOM + TWO), "ndjson", id="BOM in gzip"),
        pytest.param(gzip.compress(TWO) + gzip.compress(TWO[:0]), "ndjson", id="gzip members"),
        pytest.param(utf_16(TWO), "ndjson", id="UTF-16"),
        pytest.param(UTF_16_BE, "ndjson", id="UTF-16, big end first"),
        pytest.param(gzip.compress(utf_16(TWO)), "ndjson", id="UTF-16 in gzip"),
        pytest.param(rows(*ROWS), "csv", id="csv"),
        pytest.param(rows(*ROWS, end="\r\n"), "csv", id="csv CRLF"),
        pytest.param(rows(*ROWS).rstrip(), "csv", id="csv without last newline"),
        pytest.param(BOM + rows(*ROWS), "csv", id="csv BOM"),
        pytest.param(utf_16(rows(*ROWS, end="\r\n")), "csv", id="csv UTF-16"),
        pytest.param(utf_16(BOM + rows(*ROWS)), "csv", id="csv UTF-16 with two marks"),
        pytest.param(rows(*ROWS).replace(b",", b";"), "csv", id="csv with semicolons"),
        pytest.param(rows(*ROWS).replace(b",", b"\t"), "csv", id="csv with tabs"),
        pytest.param(rows(*ROWS).replace(b",", b", "), "csv", id="csv with spaces"),
        pytest.param(rows(*ROWS, header=HEADER.upper()), "csv", id="csv header in capitals"),
        pytest.param(
            rows(*ROWS, header='"Id";"Organization ID";"agentid";"ISSUEDAT"').replace(b",", b";"),
            "csv",
            id="csv header quoted",
        ),
        pytest.param(b"\n\n" + rows(*ROWS), "csv", id="csv blank lines before the header"),
        pytest.param(gzip.compress(rows(*ROWS)), "csv", id="csv gzip"),
        pytest.param(rows("", ROWS[0], "", ROWS[1], ""), "csv", id="csv blank lines"),
        pytest.param(REORDERED, "csv", id="csv other columns in another order"),
    ],
)
def test_every_packing_holds_the_same_events(load: Loader, data: bytes, file_format: str) -> None:
    outcome = load(data, file_format)
    assert outcome.refused == []
    assert outcome.totals == Imported(received=2, accepted=2)
    morning = datetime(2026, 4, 1, 9, tzinfo=UTC)
    assert load.stored() == [("org-a", "e1", "a1", morning), ("org-a", "e2", "a1", morning)]


@pytest.mark.parametrize(
    "data",
    [b"", b"\n\r\n", b"\xef\xbb\xbf", gzip.compress(b"")],
    ids=["nothing", "blank lines", "a byte order mark", "gzip of nothing"],
)
@pytest.mark.parametrize("file_format", ["ndjson", "csv"])
def test_an_empty_file_holds_nothing(load: Loader, data: bytes, file_format: str) -> None:
    load(data, file_format)
    assert load.stored() == []


def test_importing_twice_changes_nothing(load: Loader) -> None:
    data = line("e1") + line("e2")
    load(data)
    before = load.stored()
    assert load(data).totals == Imported(received=2, duplicates=2)
    assert load.stored() == before


def test_of_two_deliveries_the_first_wins(load: Loader) -> None:
    outcome = load(line("e1", agentId="first") + line("e1", agentId="second"))
    assert outcome.totals == Imported(received=2, accepted=1, duplicates=1)
    assert [row[2] for row in load.stored()] == ["first"]


def test_an_event_id_belongs_to_its_organization(load: Loader) -> None:
    outcome = load(line("e1", organizationId="org-a") + line("e1", organizationId="org-b"))
    assert outcome.totals.accepted == 2
    assert [row[0] for row in load.stored()] == ["org-a", "org-b"]


def test_an_organization_stands_for_events_that_leave_it_out(load: Loader) -> None:
    outcome = load(
        line("e1", organizationId=...) + line("e2") + line("e3", organizationId="org-b"),
        organization="org-a",
    )
    assert outcome.lines == [3]
    assert "organization" in outcome.refused[0].reason
    assert [row[:2] for row in load.stored()] == [("org-a", "e1"), ("org-a", "e2")]


def test_an_organization_stands_for_a_csv_without_the_column(load: Loader) -> None:
    data = rows(f"e1,a1,{MORNING}", header="id,agentId,issuedAt")
    load(data, "csv", organization="org-a")
    assert [row[:2] for row in load.stored()] == [("org-a", "e1")]


GOOD = {
    "members nobody knows": event(note={"a": [1]}, ID="x", token=None),
    "first instant": event(issuedAt="1970-01-01T00:00:00Z"),
    "offset": event(issuedAt="2026-04-01T00:30:00+05:30"),
    "negative offset": event(issuedAt="2026-03-31T23:30:00-09:30"),
    "digits cut": event(issuedAt="2026-04-01T09:00:00.1234569999Z"),
    "digits cut at midnight": event(issuedAt="2026-03-31T23:59:59.9999999Z"),
    "one digit": event(issuedAt="2026-04-01T09:00:00.5Z"),
    "leap day": event(issuedAt="2024-02-29T09:00:00Z"),
    "five minutes ahead": event(issuedAt=(NOW + timedelta(minutes=5)).isoformat()),
}


def test_issued_at_is_stored_in_utc_and_never_rounded(load: Loader) -> None:
    """`issuedAt` is stored in UTC, cut to the microsecond and never rounded."""
    data = b"".join(line(**(members | {"id": name})) for name, members in GOOD.items())
    assert load(data).refused == []
    assert {row[1]: row[3].isoformat() for row in load.stored()} == {
        "members nobody knows": "2026-04-01T09:00:00+00:00",
        "first instant": "1970-01-01T00:00:00+00:00",
        "offset": "2026-03-31T19:00:00+00:00",
        "negative offset": "2026-04-01T09:00:00+00:00",
        "digits cut": "2026-04-01T09:00:00.123456+00:00",
        "digits cut at midnight": "2026-03-31T23:59:59.999999+00:00",
        "one digit": "2026-04-01T09:00:00.500000+00:00",
        "leap day": "2024-02-29T09:00:00+00:00",
        "five minutes ahead": "2026-04-15T12:35:00+00:00",
    }


@pytest.mark.parametrize("ascii_only", [True, False], ids=["escaped", "as UTF-8"])
def test_ids_are_kept_as_they_are_and_compared_by_code_point(
    load: Loader, ascii_only: bool
) -> None:
    accents = ["\u00e9", "e\u0301", "\u00a0", "a\u2028b", "\ufeff", "\U0001f511" * 255]
    ids = ["a", "A", "a ", " a", *accents]
    text = "\n".join(json.dumps(event(name), ensure_ascii=ascii_only) for name in ids)
    assert load(text.encode()).refused == []
    assert load.ids() == sorted(ids)


def test_csv_cells_keep_line_separators_that_are_no_newlines(load: Loader) -> None:
    cells = ["a\u2028b", "\ufeffa"]
    assert load(rows(*(f"{cell},org-a,a1,{MORNING}" for cell in cells)), "csv").refused == []
    assert load.ids() == cells


@pytest.mark.parametrize(
    ("bad", "file_format"),
    [
        pytest.param(b"x" * 2**21, "ndjson", id="2 MiB"),
        pytest.param(b"[" * 200_000, "ndjson", id="deep nesting"),
        pytest.param(b'{"id":' * 100_000, "ndjson", id="deep objects"),
        pytest.param(line().strip()[:-1] + b',"n":"\xff"}', "ndjson", id="invalid UTF-8"),
        pytest.param(line().strip()[:-1] + b',"n":"\xed\xa0\x80"}', "ndjson", id="surrogate bytes"),
        pytest.param(line().strip() + line().strip(), "ndjson", id="two on one line"),
        pytest.param(ROWS[0].encode() + b"x" * 2**21, "csv", id="csv 2 MiB"),
        pytest.param(b"x" * 200_000 + b",org-a,a1," + MORNING.encode(), "csv", id="csv wide cell"),
        pytest.param(b"e\xff,org-a,a1," + MORNING.encode(), "csv", id="csv invalid UTF-8"),
        pytest.param(b"e\x00,org-a,a1," + MORNING.encode(), "csv", id="csv NUL"),
        pytest.param(b"e1,org-a,a1", "csv", id="csv too few cells"),
        pytest.param(b",org-a,a1," + MORNING.encode(), "csv", id="csv empty id"),
        pytest.param(b"e1,org-a,a1,2026-04-01", "csv", id="csv bad instant"),
    ],
)
def test_a_bad_line_is_named_and_its_neighbours_are_stored(
    load: Loader, bad: bytes, file_format: str
) -> None:
    if file_format == "csv":
        data = rows(f"before,org-a,a1,{MORNING}") + bad + f"\nafter,org-a,a1,{MORNING}\n".encode()
    else:
        data = b"\n" + line("before") + bad + b"\n" + line("after")
    outcome = load(data, file_format)
    assert outcome.lines == [3]
    assert load.ids() == ["after", "before"]


def test_the_line_after_one_of_the_longest_length_is_read() -> None:
    """After a line of exactly `MAX_EVENT_BYTES` the next line is read, whatever the line's end."""
    for end in (b"\n", b"\r\n"):
        lines = [b"x" * EVENT_BYTES + end, b"next" + end]
        assert list(bounded_lines(io.BytesIO(b"".join(lines)), EVENT_BYTES)) == lines


@pytest.mark.parametrize(
    ("mark", "length", "kept"),
    [(b"", 0, 2), (b"", 1, 1), (b"", 9, 1), (BOM, 3, 2), (BOM, 4, 1), (BOM, 12, 1)],
)
def test_only_a_line_that_was_cut_is_too_long(
    load: Loader, mark: bytes, length: int, kept: int
) -> None:
    """A line of exactly the longest length is stored; the rest of a longer one is never lost."""
    first = mark + line("e1").rstrip()
    first = first.ljust(EVENT_BYTES + length) + b"\n"
    outcome = load(first + line("e2"))
    assert len(load.ids()) == kept
    assert [refused.line for refused in outcome.refused] == [1][: 2 - kept]


def test_a_csv_row_over_several_lines_keeps_line_numbers(load: Loader) -> None:
    """A CSV row that spans several lines does not shift the line numbers of errors."""
    data = rows(f'e1,org-a,a1,{MORNING},"a\nb\nc"', "bad,org-a,a1,never,", header=HEADER + ",note")
    assert load(data, "csv").lines == [5]


@pytest.mark.parametrize("missing", ["id", "organizationId", "agentId", "issuedAt"])
def test_a_csv_without_a_column_stores_nothing_and_says_which(load: Loader, missing: str) -> None:
    outcome = load(rows(ROWS[0], header=HEADER.replace(missing, "other")), "csv")
    assert missing in outcome.refused[0].reason
    assert load.stored() == []


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32"])
def test_a_text_in_another_encoding_stores_nothing(load: Loader, encoding: str) -> None:
    """UTF-16 without its byte order mark, and UTF-32, are refused."""
    for data, file_format in ((TWO, "ndjson"), (rows(*ROWS), "csv")):
        assert load(data.decode().encode(encoding), file_format).refused
    assert load.stored() == []


class Trickle(io.RawIOBase):
    """A pipe that delivers a byte at a time."""

    def __init__(self, data: bytes) -> None:
        self._bytes = iter(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        for byte in self._bytes:
            buffer[0] = byte
            return 1
        return 0


@pytest.mark.parametrize("data", [TWO, gzip.compress(TWO)], ids=["plain", "gzip"])
def test_a_pipe_may_deliver_slowly(load: Loader, data: bytes) -> None:
    load(io.BufferedReader(Trickle(data)))
    assert load.ids() == ["e1", "e2"]


# Chunks and damage


def test_an_interrupted_import_is_simply_run_again(
    load: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stored event is a duplicate the second time, so an import may be repeated."""
    for chunk in ("CHUNK_EVENTS", "SQLITE_CHUNK_EVENTS"):
        monkeypatch.setattr(f"app.intake.importer.{chunk}", 1_000)
    events = 2_500
    data = b"".join(line(f"e{number:06}") for number in range(events))

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(data, on_chunk=interrupt)
    kept = len(load.stored())
    assert 0 < kept < events
    totals = load(data).totals
    assert totals == Imported(received=events, accepted=events - kept, duplicates=kept)
    assert len(load.stored()) == events


class Interrupted(Trickle):
    """A pipe that is followed until Ctrl-C."""

    def readinto(self, buffer: Any) -> int:
        if not super().readinto(buffer):
            raise KeyboardInterrupt
        return 1


def test_what_was_read_before_an_interruption_is_stored(load: Loader) -> None:
    with pytest.raises(KeyboardInterrupt):
        load(io.BufferedReader(Interrupted(TWO)))
    assert load.ids() == ["e1", "e2"]


def test_an_interrupted_chunk_is_not_retried(load: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's connection may still hold the lock that a second try would wait for."""
    tried = []

    def prepare(_: Database, events: list[Event], **_options: bool) -> Callable[[], Stored]:
        def interrupt() -> Stored:
            tried.append(len(events))
            raise KeyboardInterrupt

        return interrupt

    monkeypatch.setattr("app.intake.importer.prepare_storing", prepare)
    with pytest.raises(KeyboardInterrupt):
        load(TWO)
    assert tried == [2]


def damaged(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :]


WHOLE = gzip.compress(b"".join(line(f"e{number:04}") for number in range(2_000)))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(WHOLE[: len(WHOLE) // 2], id="cut in the middle"),
        pytest.param(WHOLE[:-3], id="cut in the checksum"),
        pytest.param(WHOLE[:5], id="cut in the header"),
        pytest.param(damaged(WHOLE, len(WHOLE) // 2), id="damaged in the middle"),
        pytest.param(damaged(WHOLE, len(WHOLE) - 7), id="damaged checksum"),
        pytest.param(WHOLE + b"garbage", id="garbage behind it"),
    ],
)
def test_a_damaged_gzip_is_named_and_the_whole_file_mends_it(load: Loader, data: bytes) -> None:
    with pytest.raises(ValidationError, match="events: "):
        load(data)
    kept = set(load.ids())
    assert kept <= {f"e{number:04}" for number in range(2_000)}
    assert load(WHOLE).totals == Imported(
        received=2_000, accepted=2_000 - len(kept), duplicates=len(kept)
    )
