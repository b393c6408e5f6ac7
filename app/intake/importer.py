"""Import: reads files of events as streams and stores them in chunks.

Memory does not grow with the size of a file: while one chunk is stored, only the next one is read.
Each chunk is committed as one batch. A source that delivers slowly, such as a log that is followed,
is stored in smaller chunks. An interrupted import can be run again, because an event that is
already stored counts as a duplicate.
"""

import gc
import io
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from threading import Thread
from typing import NamedTuple
from zoneinfo import ZoneInfo

from app.errors import ForbiddenError, ValidationError
from app.intake.events import Event, InvalidEvent, Members, make_event
from app.intake.files import is_regular, open_lines
from app.intake.formats import FORMATS, detection
from app.intake.formats.base import Format, Header, Options, Skipped
from app.intake.organizations import Organizations
from app.intake.store import Stored, prepare_storing
from app.storage.database import Database

CHUNK_EVENTS = 10_000
# SQLite writes every page that a transaction touched, and keys come in any order. A larger
# transaction writes each page fewer times.
SQLITE_CHUNK_EVENTS = 50_000
TURN_SECONDS = 1e-5
# A chunk is stored after so long without more data, and at the latest after so long.
SILENT_SECONDS = 1
CHUNK_SECONDS = 5


class Refused(NamedTuple):
    """A record that was not stored.

    Attributes:
        line: the number of its first line, from 1.
        text: the record as it was read; empty if it is above the limit.
        header: the line that must precede it in a file of its own, such as names of CSV columns.
    """

    source: str
    line: int
    reason: str
    text: bytes = b""
    header: bytes = b""


@dataclass
class Imported:
    """Totals; ``received`` is the sum of all others."""

    received: int = 0
    accepted: int = 0
    duplicates: int = 0
    refused: int = 0
    skipped: Counter[str] = field(default_factory=Counter)


@contextmanager
def _tuned_interpreter() -> Iterator[None]:
    """Tune the interpreter for an import.

    Threads take turns every 10 µs instead of 5 ms. Otherwise the storing thread would wait 5 ms for
    the reading thread after each part of a batch that the database has received. The garbage
    collector ignores existing objects, because it would scan them again for every chunk.
    """
    usual = sys.getswitchinterval()
    sys.setswitchinterval(TURN_SECONDS)
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        sys.setswitchinterval(usual)


@dataclass
class Importer:
    """Reads files of one format into the database.

    Args:
        database: ``None`` for a trial, which stores nothing.
        file_format: a format, or the name of one in ``FORMATS``; ``None`` if the first records of
            each file tell it.
        tenant_id: the tenant of all events; ``None`` if each event names its own.
        max_bytes: the limit of one record of a file.
        clock: returns the present; called for every event, because a source may be a live pipe.
        on_refused: called for every refused record; all others are stored.
        on_chunk: called after every commit.
        on_format: called with the format of a file, before its first record.
        on_trial: called with the events of every chunk in a trial.
        on_wait: called before each read, and several times a second while a pipe has no data. It
            may end the import by an exception; then all complete lines that were read are stored.
        max_document_bytes, zone, organizations: see :class:`~app.intake.formats.base.Options`.
    """

    database: Database | None
    file_format: Format | str | None
    tenant_id: str | None
    max_bytes: int
    clock: Callable[[], datetime]
    on_refused: Callable[[Refused], None]
    on_chunk: Callable[[], None]
    on_format: Callable[[Format], None] = lambda _: None
    on_trial: Callable[[list[Event]], None] = lambda _: None
    on_wait: Callable[[], None] = lambda: None
    max_document_bytes: int = 256 * 1024 * 1024
    zone: ZoneInfo | None = None
    organizations: Organizations | None = None
    totals: Imported = field(default_factory=Imported)
    _pending: "Future[Stored] | None" = field(default=None, init=False)
    _stored_at: float = field(default=0, init=False)

    @_tuned_interpreter()
    def load(self, source: str, file: io.BufferedReader) -> None:
        """Store the events of one file, gzip-compressed or not.

        Raises:
            ValidationError: the file is damaged or cannot be read further. The events before
                that point are stored. They are also stored if reading is interrupted.
        """
        chunk: list[Event] = []
        self._stored_at = time.monotonic()

        def on_wait(silent: float) -> None:
            self.on_wait()
            waited = time.monotonic() - self._stored_at
            if silent >= SILENT_SECONDS or waited >= CHUNK_SECONDS:
                self._store(chunk)
                self._settle()

        on_sqlite = self.database is not None and not self.database.is_postgresql
        enough = SQLITE_CHUNK_EVENTS if on_sqlite else CHUNK_EVENTS
        header = b""
        try:
            lines = open_lines(file, self.max_bytes, on_wait)
            file_format, lines = self._format(source, lines, is_pipe=not is_regular(file))
            self.on_format(file_format)
            for number, outcome, text in file_format(lines, self._options):
                if isinstance(outcome, Header):
                    header = text
                    continue
                if problem := self._problem(outcome, chunk):
                    self.on_refused(Refused(source, number, problem, text, header))
                if len(chunk) >= enough:
                    self._store(chunk)
        except (EOFError, OSError, UnicodeError, zlib.error) as error:
            kept = "would be imported" if self.database is None else "are stored"
            raise ValidationError(
                f"{source}: {error}; the events before that point {kept}"
            ) from None
        finally:
            self._store(chunk)
            self._settle()

    @property
    def _options(self) -> Options:
        return Options(
            self.tenant_id, self.max_bytes, self.max_document_bytes, self.zone, self.organizations
        )

    def _format(
        self, source: str, lines: Iterator[bytes], *, is_pipe: bool
    ) -> tuple[Format, Iterator[bytes]]:
        """The format of a file, and its lines."""
        if isinstance(self.file_format, Format):
            return self.file_format, lines
        if self.file_format is not None:
            return FORMATS[self.file_format], lines
        names, lines = detection.tell(FORMATS, lines, self._options, is_pipe=is_pipe)
        if len(names) > 1:
            raise ValidationError(
                f"{source}: its first records may be of {' or '.join(names)}; choose with --format"
            )
        return FORMATS[names[0] if names else "native"], lines

    def _problem(self, outcome: Members | Skipped | InvalidEvent, chunk: list[Event]) -> str | None:
        """Count a record, and add it to the chunk; return why it is refused, if it is."""
        self.totals.received += 1
        if isinstance(outcome, Skipped):
            self.totals.skipped[outcome.reason] += 1
            return None
        try:
            if isinstance(outcome, InvalidEvent):
                raise outcome
            chunk.append(make_event(outcome, self.tenant_id, self.clock()))
        except (InvalidEvent, ForbiddenError) as problem:
            self.totals.refused += 1
            return str(problem)
        return None

    def _store(self, chunk: list[Event]) -> None:
        """Begin to store a chunk when the one before it is stored."""
        # Emptied first, so that a chunk that fails or is interrupted is not stored again.
        events = chunk.copy()
        chunk.clear()
        self._stored_at = time.monotonic()
        if self.database is None:
            self.totals.accepted += len(events)
            self.on_trial(events)
            return
        # Most imports have no duplicates; one that was interrupted before begins with them.
        expected_new = self.totals.duplicates == 0
        store = prepare_storing(self.database, events, expected_new=expected_new)
        self._settle()
        if events:
            # SQLite's driver takes the interpreter's lock for each row. In a separate thread it
            # would wait for the reading thread at each row.
            self._pending = _in_thread(store) if self.database.is_postgresql else _done(store)
            if self._pending.done():
                self._settle()

    def _settle(self) -> None:
        """Wait until the pending chunk is stored, and add it to the totals."""
        pending, self._pending = self._pending, None
        if pending is not None:
            recorded = pending.result()
            self.totals.accepted += recorded.accepted
            self.totals.duplicates += recorded.duplicates
            self.on_chunk()


def _done(store: Callable[[], Stored]) -> "Future[Stored]":
    future = Future[Stored]()
    future.set_result(store())
    return future


def _in_thread(store: Callable[[], Stored]) -> "Future[Stored]":
    """Store in a thread while the next chunk is read.

    Ctrl-C interrupts the main thread only. The main thread need not wait for this thread, because
    the database commits a chunk as a whole or not at all.
    """
    future = Future[Stored]()

    def run() -> None:
        try:
            future.set_result(store())
        except BaseException as error:  # the main thread raises the error
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future
