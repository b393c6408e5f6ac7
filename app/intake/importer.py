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

from app.errors import ForbiddenError, ValidationError
from app.intake.events import Event, InvalidEvent, Members, make_event
from app.intake.files import open_lines
from app.intake.formats import FORMATS
from app.intake.formats.base import Format, Header, Options, Skipped
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
    """A line that was not stored: its source, its number (1-based), and the reason."""

    source: str
    line: int
    reason: str


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
        file_format: a format, or the name of one in ``FORMATS``.
        tenant_id: the tenant of all events; ``None`` if each event names its own.
        max_bytes: the limit of one record of a file.
        clock: returns the present; called for every event, because a source may be a live pipe.
        on_refused: called for every refused line; all other lines are stored.
        on_chunk: called after every commit.
    """

    database: Database
    file_format: Format | str
    tenant_id: str | None
    max_bytes: int
    clock: Callable[[], datetime]
    on_refused: Callable[[Refused], None]
    on_chunk: Callable[[], None]
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
            waited = time.monotonic() - self._stored_at
            if silent >= SILENT_SECONDS or waited >= CHUNK_SECONDS:
                self._store(chunk)
                self._settle()

        enough = CHUNK_EVENTS if self.database.is_postgresql else SQLITE_CHUNK_EVENTS
        try:
            lines = open_lines(file, self.max_bytes, on_wait)
            options = Options(self.tenant_id, self.max_bytes)
            for number, outcome, _ in self._format(lines, options):
                if isinstance(outcome, Header):
                    continue
                self._take(source, number, outcome, chunk)
                if len(chunk) >= enough:
                    self._store(chunk)
        except (EOFError, OSError, UnicodeError, zlib.error) as error:
            raise ValidationError(
                f"{source}: {error}; the events before that point are stored"
            ) from None
        finally:
            self._store(chunk)
            self._settle()

    @property
    def _format(self) -> Format:
        return FORMATS[self.file_format] if isinstance(self.file_format, str) else self.file_format

    def _take(
        self,
        source: str,
        number: int,
        members: Members | Skipped | InvalidEvent,
        chunk: list[Event],
    ) -> None:
        self.totals.received += 1
        if isinstance(members, Skipped):
            self.totals.skipped[members.reason] += 1
            return
        try:
            if isinstance(members, InvalidEvent):
                raise members
            chunk.append(make_event(members, self.tenant_id, self.clock()))
        except (InvalidEvent, ForbiddenError) as problem:
            self.totals.refused += 1
            self.on_refused(Refused(source, number, str(problem)))

    def _store(self, chunk: list[Event]) -> None:
        """Begin to store a chunk when the one before it is stored."""
        # Emptied first, so that a chunk that fails or is interrupted is not stored again.
        events = chunk.copy()
        chunk.clear()
        self._stored_at = time.monotonic()
        store = prepare_storing(self.database, events)
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
