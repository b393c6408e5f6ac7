"""The files of one log: the current one, and those that it was before its rotations.

A *survey* looks at the folder. It finds the files that were read under their new names, and the
rotated files that were never seen. So it does not matter how a log is rotated: by a new name, by
copy and truncation, with compression, or several times while nothing reads it.
"""

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec

from app.intake.sources.logfile import Key, LogFile, Mark, Sibling, Stamp, siblings


@dataclass(eq=False)
class Reading:
    """An open file that is being read.

    Attributes:
        mark: how far it is read.
        stamp: the state in which it was last read to its end.
        grown: when that was (monotonic).
    """

    file: LogFile
    mark: Mark
    stamp: Stamp | None = None
    grown: float = 0


class LogFiles:
    """The files of a log, with their marks, the oldest first.

    Args:
        since: a time of change, in nanoseconds. Rotated files from before it are left alone.

    Attributes:
        marks: the marks of the files, those that are not found included.
        open: the files that may have something to read.
        problem: why a file could not be opened at the last survey.
        is_unsettled: whether files were renamed during the last survey, so that it may have missed
            one.
    """

    def __init__(self, path: Path, marks: Iterable[Mark], since: int) -> None:
        self.marks = list(marks)
        self.since = since
        self.open: list[Reading] = []
        self.problem: OSError | None = None
        self.is_unsettled = False
        self._path = path
        self._current: Key | None = None
        # The rotated files that were read to their end, in the state in which they were read.
        self._done: dict[Key, Stamp] = {}

    def close(self) -> None:
        """Close the open files."""
        for one in self.open:
            one.file.close()
        self.open = []

    def is_moved(self) -> bool:
        """Whether the log is another file than at the last survey."""
        try:
            status = self._path.stat()
        except OSError:
            return self._current is not None
        return Key(status.st_dev, status.st_ino) != self._current

    def is_rotated(self, one: Reading) -> bool:
        """Whether a file is no longer the one that the log's name leads to."""
        return one.file.key != self._current

    def survey(self) -> None:
        """Open a file for each mark, for each rotated file without a mark, and for the log itself.

        Raises:
            OSError: a folder cannot be read.
        """
        self.problem, self.is_unsettled = None, False
        current = self._opened(self._path)
        try:
            beside = siblings(self._path, self.marks)
            self._match(current, beside)
        finally:
            if current is not None and all(one.file is not current for one in self.open):
                current.close()
        again = {(one.key, one.path) for one in siblings(self._path, self.marks)}
        if again != {(one.key, one.path) for one in beside}:
            self.is_unsettled = True
        if not self.is_unsettled:
            self._advance()

    def _advance(self) -> None:
        """Leave alone, from now on, the rotated files from before this survey.

        They all have marks. But a mark at the begin of a file cannot find it under another inode,
        so that file must be found as one that was never seen.
        """
        unread = [mark.modified for mark in self.marks if mark.offset == 0]
        latest = max((mark.modified for mark in self.marks), default=0)
        self.since = max(self.since, min(unread, default=latest))

    def finish(self, one: Reading, stamp: Stamp) -> None:
        """Close a rotated file that was read to its end. It is opened again if it grows."""
        self._done[one.file.key] = stamp
        self.drop(one)

    def drop(self, one: Reading) -> None:
        """Close a file and keep its mark."""
        one.file.close()
        self.open.remove(one)

    def moved_on(self, one: Reading, mark: Mark, kept: int) -> list[Mark]:
        """The marks after a read: of the newest files, and of those that are open."""
        marks = [mark if each is one.mark else each for each in self.marks]
        being_read = {each.file.key for each in self.open}
        surplus = len(marks) - kept
        for each in list(marks):
            if surplus > 0 and each.key not in being_read:
                marks.remove(each)
                surplus -= 1
        return marks

    def _match(self, current: LogFile | None, beside: list[Sibling]) -> None:
        before, self.open = self.open, []
        lost = [mark for mark in self.marks if not self._is_still_open(mark, before)]
        for reading in before:
            if reading not in self.open:
                reading.file.close()
        places = {one.key: one for one in beside}
        lost = [mark for mark in lost if not self._find(mark, current, places.get(mark.key))]
        for mark in lost:
            self._adopt(mark, current, beside)
        for one in beside:
            if one.rotated and one.stamp.modified >= self.since and not self._has(one.key):
                self._begin_rotated(one)
        if current is not None and not self._has(current.key):
            self._begin(current, self._mark_before(current))
        self._current = None if current is None else current.key

    def _is_still_open(self, mark: Mark, before: list[Reading]) -> bool:
        for one in before:
            if one.mark is mark and one.file.continues(mark):
                self.open.append(one)
                return True
        return False

    def _find(self, mark: Mark, current: LogFile | None, place: Sibling | None) -> bool:
        """Find the file of a mark by device and inode; return whether it continues the mark."""
        if place is not None and self._done.get(mark.key) == place.stamp:
            return True
        self._done.pop(mark.key, None)  # it has grown again, or is gone
        if self._has(mark.key):  # the file of another mark has this inode now
            return False
        if current is not None and current.key == mark.key:
            return self._take(current, mark)
        file = None if place is None else self._opened(place.path)
        if file is None:
            return False
        return (file.key == mark.key and self._take(file, mark)) or self._reject(file)

    def _adopt(self, mark: Mark, current: LogFile | None, beside: list[Sibling]) -> None:
        """Find the file that continues a mark under another inode: a copy, or a compressed one.

        Without one the mark stays: the file may be in the middle of a rotation.
        """
        for one in beside if mark.offset > 0 else ():
            if self._has(one.key) or one.stamp.modified < mark.modified:
                continue
            is_current = current is not None and current.key == one.key
            file = current if is_current else self._opened(one.path)
            if file is None:
                continue
            device, inode = file.key
            moved = msgspec.structs.replace(mark, device=device, inode=inode, path=str(one.path))
            if self._take(file, moved):
                self.marks[self.marks.index(mark)] = moved
                return
            if not is_current:
                file.close()

    def _begin_rotated(self, one: Sibling) -> None:
        """Read a rotated file that was never seen, unless it is a copy of one that is read."""
        # While a file is being compressed there are both, and the plain one is read.
        if one.path.suffix == ".gz" and one.path.with_suffix("").exists():
            return
        file = self._opened(one.path)
        if file is None:
            self.is_unsettled = True
            return
        if self._has(file.key) or self._mark_before(file) is not None:
            file.close()
        else:
            self._begin(file, None)

    def _begin(self, file: LogFile, before: Mark | None) -> None:
        """Read a file from its begin, or from the mark of another file with the same content."""
        mark = file.new_mark()
        if before is not None:
            mark = msgspec.structs.replace(
                before, device=mark.device, inode=mark.inode, path=mark.path
            )
        self.marks.append(mark)
        self.open.append(Reading(file, mark))

    def _mark_before(self, file: LogFile) -> Mark | None:
        """The furthest mark that a file continues, if it is a copy of another one."""
        marks = [mark for mark in self.marks if mark.offset > 0 and file.continues(mark)]
        return max(marks, key=lambda mark: mark.offset, default=None)

    def _take(self, file: LogFile, mark: Mark) -> bool:
        """Read a file from a mark, if it continues the mark."""
        if not file.continues(mark):
            return False
        self.open.append(Reading(file, mark))
        return True

    @staticmethod
    def _reject(file: LogFile) -> bool:
        file.close()
        return False

    def _has(self, key: Key) -> bool:
        """Whether a file is being read, or was read to its end."""
        return key in self._done or any(one.file.key == key for one in self.open)

    def _opened(self, path: Path) -> LogFile | None:
        """A file; ``None`` if it is gone or cannot be opened, which is a problem to report."""
        try:
            return LogFile(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            self.problem = error
            return None


def has_read(path: Path, marks: Iterable[Mark]) -> bool:
    """Whether one of the marks was made in a file of the log that is here.

    Raises:
        OSError: a folder cannot be read.
    """
    marks = [mark for mark in marks if mark.offset > 0]
    if not marks:
        return False
    oldest = min(mark.modified for mark in marks)
    places = [one.path for one in siblings(path, ()) if one.stamp.modified >= oldest]
    for place in (path, *places):
        try:
            file = LogFile(place)
        except OSError:
            continue
        with closing(file):
            if any(file.continues(mark) for mark in marks):
                return True
    return False
