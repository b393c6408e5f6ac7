"""Bulk load: files of events, streamed and stored in chunks.

Memory stays flat whatever the file's size: while a chunk is stored the next one is read, no
more. Each chunk is one committed batch, and a stored event is a duplicate the second time, so
an interrupted import is simply run again.
"""

import gc
import gzip
import io
import select
import sys
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from threading import Thread
from typing import Any, NamedTuple

from app.errors import ForbiddenError, ValidationError
from app.intake.events import (
    Event,
    InvalidEvent,
    Members,
    make_event,
)
from app.intake.formats import FORMATS
from app.intake.formats.base import bounded_lines
from app.intake.store import Recorded, prepare_recording
from app.storage.database import Database

CHUNK_EVENTS = 10_000
# SQLite writes every page that a transaction touched, and keys come in any order: more events
# in one means fewer times for each page.
SQLITE_CHUNK_EVENTS = 50_000
TURN_SECONDS = 1e-5
READ_BYTES = 128 * 1024
WAIT_MILLISECONDS = 100
_GZIP = b"\x1f"


class Refused(NamedTuple):
    """A line that was not stored: where it stands (1-based), and why."""

    source: str
    line: int
    reason: str


@dataclass
class Imported:
    """Totals; ``received == accepted + duplicates + refused``."""

    received: int = 0
    accepted: int = 0
    duplicates: int = 0
    refused: int = 0


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Have threads take turns every 10 µs: at the usual 5 ms the one that stores would wait as
    long for the one that reads, each time that the database has taken some of its batch. And have
    the garbage collector leave alone what is there already: with every chunk it would go through
    all of that anew."""
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
        file_format: a key of ``FORMATS``.
        tenant_id: whose events these are; ``None`` when each event says so itself.
        clock: the present, asked for every event: a source may be a live pipe.
        on_refused: told of every line that is refused; the others are stored.
        on_chunk: called after every commit.
    """

    database: Database
    file_format: str
    tenant_id: str | None
    clock: Callable[[], datetime]
    on_refused: Callable[[Refused], None]
    on_chunk: Callable[[], None]
    totals: Imported = field(default_factory=Imported)
    _under_way: "Future[Recorded] | None" = field(default=None, init=False)

    @_undisturbed()
    def load(self, source: str, file: io.BufferedReader) -> None:
        """Store the events of one file, gzip-compressed or not.

        Raises:
            ValidationError: the file breaks off or cannot be read on. The events before
                that point are stored, as they are when reading is interrupted.
        """
        chunk: list[Event] = []
        enough = CHUNK_EVENTS if self.database.is_postgresql else SQLITE_CHUNK_EVENTS
        try:
            for number, members in FORMATS[self.file_format](
                bounded_lines(_plain(_interruptible(file)))
            ):
                self._take(source, number, members, chunk)
                if len(chunk) >= enough:
                    self._store(chunk)
        except (EOFError, OSError, zlib.error) as error:
            raise ValidationError(f"{source}: {error}") from None
        finally:
            self._store(chunk)
            self._settle()

    def _take(
        self, source: str, number: int, members: Members | InvalidEvent, chunk: list[Event]
    ) -> None:
        self.totals.received += 1
        try:
            if isinstance(members, InvalidEvent):
                raise members
            chunk.append(make_event(members, self.tenant_id, self.clock()))
        except (InvalidEvent, ForbiddenError) as problem:
            self.totals.refused += 1
            self.on_refused(Refused(source, number, str(problem)))

    def _store(self, chunk: list[Event]) -> None:
        """Begin to store a chunk, once the one before is stored."""
        # Emptied first: what fails or is interrupted on its way in is not tried once more.
        events = chunk.copy()
        chunk.clear()
        store = prepare_recording(self.database, events)
        self._settle()
        if events:
            # SQLite's driver takes the interpreter's lock anew for each row: it would wait for
            # the reading thread every time.
            self._under_way = _aside(store) if self.database.is_postgresql else _done(store)
            if self._under_way.done():
                self._settle()

    def _settle(self) -> None:
        """Wait until what is under way is stored, and count it."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            recorded = under_way.result()
            self.totals.accepted += recorded.accepted
            self.totals.duplicates += recorded.duplicates
            self.on_chunk()


def _done(store: Callable[[], Recorded]) -> "Future[Recorded]":
    future = Future[Recorded]()
    future.set_result(store())
    return future


def _aside(store: Callable[[], Recorded]) -> "Future[Recorded]":
    """Store in a thread of its own, while the next chunk is read. Ctrl-C, which only the main
    thread hears, need not wait for it: a commit happens whole or not at all."""
    future = Future[Recorded]()

    def run() -> None:
        try:
            future.set_result(store())
        except BaseException as error:  # the main thread raises it
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future


class _Interruptible(io.RawIOBase):
    """What a file has, as it comes.

    Ctrl-C ends a read that waits, but not one that begins just after it came: the process would
    wait for more of a pipe and then end. So it is not in a read that anybody waits here.
    """

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file
        self._ready = select.poll()
        self._ready.register(file, select.POLLIN)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready.poll(WAIT_MILLISECONDS):
            pass
        return self._file.readinto1(buffer)


def _interruptible(file: io.BufferedReader) -> io.BufferedReader:
    try:
        file.fileno()
    except OSError:  # it is in memory
        return file
    return io.BufferedReader(_Interruptible(file), READ_BYTES)


def _plain(file: io.BufferedReader) -> io.BufferedIOBase:
    """The file, decompressed if it is compressed, whatever it is called."""
    # The first byte is enough, no text begins with it; a slow pipe may have no second one yet.
    if file.peek(1)[:1] == _GZIP:
        return gzip.GzipFile(fileobj=file)
    return file
