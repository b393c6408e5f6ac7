"""Follow a log file across its rotations, as ``tail -F`` does, and lose nothing after a restart.

A *turn* reads what is new, chunk by chunk. Each chunk commits with the position behind it.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from app.intake.events import prepared
from app.intake.sources.logfile import Lines, LogFile, Mark, ReplacedError, Stamp
from app.intake.sources.positions import (
    MovedError,
    Spot,
    advance,
    create,
    note_failure,
    note_read,
    spots,
)
from app.intake.sources.records import RecordReader
from app.intake.sources.rotation import LogFiles, Reading, has_read
from app.storage.database import Database
from app.telemetry import logs

log = logging.getLogger("app.sources")

KIND = "follow"
# The files of a log whose marks are kept: the current one and the newest rotated ones.
KEPT_MARKS = 8
SURVEY_SECONDS = 10.0
# A rotated file that has not grown for so long is complete.
QUIET_SECONDS = 10.0
# How often it is noted that the log was read to its end, if nothing is new.
NOTE_SECONDS = 60.0


@prepared
class Position(msgspec.Struct, frozen=True):
    """The position of a followed log.

    Attributes:
        files: the marks of its files, the oldest first.
        since: rotated files from before this time of change are left alone, in nanoseconds.
    """

    files: tuple[Mark, ...] = ()
    since: int = 0

    def text(self) -> str:
        return msgspec.json.encode(self).decode()


class Follower:
    """Follows one log file. One thread at a time takes its turns.

    Args:
        records: reads the records of the log, and has its name.
        path: the log file. It need not exist yet.
        host: the name of this host, which tells its files from those of other hosts.
    """

    def __init__(
        self,
        database: Database,
        records: RecordReader,
        path: Path,
        host: str,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = records.name
        self.spot: Spot | None = None
        self._database = database
        self._records = records
        self._path = path.absolute()
        self._host = host
        self._monotonic = monotonic
        self._files = LogFiles(self._path, (), 0)
        self._surveyed = self._noted = float("-inf")

    def turn(self) -> bool:
        """Read what is new, at most one chunk of each file; return whether there is more.

        Raises:
            OSError: the log cannot be read.
            DBAPIError: the database is unavailable. The next turn reads the same lines again.
        """
        try:
            return self._turn()
        except MovedError:
            # Another process reads this log, or a commit succeeded and its answer was lost.
            self.close()
            return True

    def fail(self, reason: str) -> None:
        """Note why a turn failed."""
        note_failure(self._database, self.spot or create(self._database, self._unread()), reason)

    def _unread(self) -> Spot:
        """The position before the log was opened for the first time."""
        return Spot(self.name, self._host, KIND, "")

    def close(self) -> None:
        """Close the files and forget the position; the next turn begins at the stored one."""
        self._files.close()
        self.spot = None
        self._surveyed = float("-inf")

    def _turn(self) -> bool:
        if self.spot is None and not self._load():
            return False  # the log does not exist yet
        files = self._files
        is_due = self._monotonic() - self._surveyed >= SURVEY_SECONDS
        if is_due or files.problem is not None or files.is_unsettled or files.is_moved():
            self._files.survey()
            self._surveyed = self._monotonic()
        # A list: files that are finished are removed meanwhile.
        more = [self._read(one) for one in list(self._files.open)]
        if self._files.problem is not None:
            raise self._files.problem
        if not any(more):
            self._note()
        return any(more)

    def _load(self) -> bool:
        """Load the position of this host, or that of another host that has read these files.

        A container has another host name after each start, and the same files.
        """
        stored = spots(self._database, self.name)
        # A failure before the first line leaves a position without marks.
        own = (spot for spot in stored if spot.place == self._host and spot.position)
        chosen = next(own, None)
        chosen = chosen or next(
            (s for s in stored if has_read(self._path, _position(s).files)), None
        )
        if chosen is None or not chosen.position:
            try:
                first = LogFile(self._path)
            except FileNotFoundError:
                return False
            mark = first.new_mark()
            first.close()
            chosen = create(self._database, self._unread())
            begin = Position((mark,), mark.modified)
            chosen, _ = advance(self._database, chosen, begin.text())
        self.spot = chosen
        self._forget_failure(stored)
        self._files.close()
        position = _position(chosen)
        self._files = LogFiles(self._path, position.files, position.since)
        self._surveyed = float("-inf")
        return True

    def _forget_failure(self, stored: list[Spot]) -> None:
        """Note that a failure under this name of the host is over: another name goes on."""
        for spot in stored:
            if spot.place == self._host and not spot.position:
                note_read(self._database, spot)

    def _read(self, one: Reading) -> bool:
        """Read and store one chunk of a file; return whether there is more."""
        stamp = one.file.stamp()
        is_last = self._is_complete(one, stamp)
        if stamp == one.stamp and not is_last:
            return False
        try:
            lines = one.file.read(one.mark, last=is_last)
        except ReplacedError:
            name = one.file.path.name
            logs.write(log, logging.INFO, "log truncated", source=self.name, file=name)
            self._files.drop(one)
            self._surveyed = float("-inf")
            return True
        if lines.mark.offset > one.mark.offset:
            self._store(one, lines)
        elif is_last:
            self._files.finish(one, stamp)
            return False
        if not lines.more and stamp != one.stamp:
            one.stamp, one.grown = stamp, self._monotonic()
        return lines.more

    def _is_complete(self, one: Reading, stamp: Stamp) -> bool:
        """Whether nothing will be added to a file: a last line without an end is then a line."""
        if one.file.is_compressed:
            return True
        is_quiet = stamp == one.stamp and self._monotonic() - one.grown >= QUIET_SECONDS
        return is_quiet and self._files.is_rotated(one)

    def _store(self, one: Reading, lines: Lines) -> None:
        """Store the events of some lines with the position behind them."""
        if self.spot is None:  # the position has just been forgotten
            raise MovedError
        where = f"{one.file.path.name}, bytes {one.mark.offset} to {lines.mark.offset}"
        found = self._records.read(lines.lines, where)
        for _ in range(lines.oversized):
            self._records.refuse(found, "a line is longer than 1 MiB", where)
        marks = self._files.moved_on(one, lines.mark, KEPT_MARKS)
        self.spot, _stored = advance(
            self._database,
            self.spot,
            Position(tuple(marks), self._files.since).text(),
            found.events,
            skipped=found.skipped.total(),
            refused=found.refused,
            before_commit=lambda: self._records.keep(found.rejected),
        )
        self._files.marks, one.mark = marks, lines.mark
        self._noted = self._monotonic()

    def _note(self) -> None:
        """Note from time to time that the log was read to its end."""
        now = self._monotonic()
        if self.spot is not None and now - self._noted >= NOTE_SECONDS:
            note_read(self._database, self.spot)
            self._noted = now


def _position(spot: Spot) -> Position:
    if not spot.position:
        return Position()
    return msgspec.json.decode(spot.position, type=Position)
