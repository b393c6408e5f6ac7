"""Records of a source: checked events, and what became of the others.

A bad record never stops a source. It is counted, named in the log without its content, and kept in
a file if the operator names one.
"""

import logging
import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from app.errors import ForbiddenError
from app.intake.events import Event, InvalidEvent, make_event
from app.intake.formats import Format, Options
from app.intake.formats.base import Header, Skipped
from app.telemetry import logs

log = logging.getLogger("app.sources")

# In a minute, so many refused records of a source are named in the log.
SHOWN_REFUSALS = 10
SHOWN_SECONDS = 60.0


@dataclass
class Read:
    """The records of one batch.

    Attributes:
        events: the events, in their order.
        skipped: how many records are not counted, by reason.
        refused: how many records were refused.
        rejected: the texts of the refused records.
    """

    events: list[Event] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    rejected: list[bytes] = field(default_factory=list)


@dataclass
class RecordReader:
    """Reads the records of one source.

    Args:
        name: the source, for the log.
        file_format: the format of a record.
        options: the options of the format.
        clock: returns the present.
        rejects: a file that gets each refused record, as a line.
    """

    name: str
    file_format: Format
    options: Options
    clock: Callable[[], datetime]
    rejects: Path | None = None
    _shown: int = field(default=0, init=False)
    _minute: float = field(default=float("-inf"), init=False)

    def read(self, lines: Iterable[bytes], where: str) -> Read:
        """The records of some lines.

        Each line is read alone: a broken one must not change how the next ones are read.

        Args:
            where: the place of the lines in the source, for the log.
        """
        found = Read()
        now = self.clock()
        for line in lines:
            try:
                for _number, outcome, text in self.file_format(iter((line,)), self.options):
                    if isinstance(outcome, Header):
                        continue
                    if isinstance(outcome, Skipped):
                        found.skipped[outcome.reason] += 1
                        continue
                    try:
                        if isinstance(outcome, InvalidEvent):
                            raise outcome
                        found.events.append(make_event(outcome, self.options.tenant_id, now))
                    except (InvalidEvent, ForbiddenError) as problem:
                        self.refuse(found, str(problem), where)
                        found.rejected.append(text)
            except Exception as error:  # a record that a format cannot bear must not stop the rest
                self.refuse(found, f"unreadable: {type(error).__name__}", where)
                found.rejected.append(line)
        return found

    def refuse(self, found: Read, reason: str, where: str) -> None:
        """Count a refused record, and log it unless many are refused."""
        found.refused += 1
        now = time.monotonic()
        if now - self._minute >= SHOWN_SECONDS:
            self._minute, self._shown = now, 0
        self._shown += 1
        if self._shown <= SHOWN_REFUSALS:
            logs.write(
                log, logging.WARNING, "record refused", source=self.name, reason=reason, at=where
            )
        elif self._shown == SHOWN_REFUSALS + 1:
            message = "further refused records of this minute are counted, not listed"
            logs.write(log, logging.WARNING, message, source=self.name)

    def keep(self, rejected: list[bytes]) -> None:
        """Append refused records to the file of rejects, which only its owner can read.

        It is written before the commit: if that fails, a record may be there twice. A file that
        cannot be written does not stop the source.
        """
        if self.rejects is None or not rejected:
            return
        lines = b"".join(b" ".join(text.splitlines()) + b"\n" for text in rejected)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            with open(os.open(self.rejects, flags, 0o600), "wb") as file:
                if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    os.fchmod(file.fileno(), 0o600)
                file.write(lines)
        except OSError as error:
            message = "refused records could not be kept"
            logs.write(log, logging.ERROR, message, source=self.name, reason=error.strerror)
