"""A log of events that is written and rotated, as an identity provider and logrotate do it."""

import gzip
import json
import os
import random
import shutil
from pathlib import Path

AT = "2026-04-01T09:00:00Z"


def event_line(event_id: str, **members: str) -> bytes:
    """An event of the service's own format, as a line."""
    event = {"id": event_id, "organizationId": "org-a", "agentId": "agent-1", "issuedAt": AT}
    return json.dumps(event | members).encode() + b"\n"


class RotatedLog:
    """Writes events to a log, and rotates it in every way.

    Attributes:
        written: the ids of the events, in their order.
    """

    def __init__(self, path: Path, dice: random.Random) -> None:
        self.path = path
        self.written: list[str] = []
        self._dice = dice
        self._number = 0
        self._file = path.open("ab", buffering=0)

    def write(self, events: int) -> None:
        """Write events, now and then in two halves."""
        for _ in range(events):
            name = f"event-{len(self.written):06}"
            line = event_line(name, pad="x" * self._dice.randrange(300))
            cut = self._dice.randrange(len(line)) if self._dice.random() < 0.2 else 0
            self._file.write(line[:cut])
            self._file.write(line[cut:])
            self.written.append(name)

    def rotate(self) -> None:
        """Rotate the log in one of the ways."""
        ways = (self.rename, self.rename_late, self.copy_and_truncate, self.compress)
        self._dice.choice(ways)()

    def rename(self) -> Path:
        """A new name, and a new file at once."""
        old = self._next_name()
        self.path.rename(old)
        self._reopen()
        return old

    def rename_late(self) -> None:
        """A new name, to which the writer goes on for a while."""
        self.path.rename(self._next_name())
        self.write(self._dice.randrange(4))
        self._reopen()

    def copy_and_truncate(self) -> None:
        """A copy, after which the file begins anew."""
        shutil.copyfile(self.path, self._next_name())
        os.truncate(self.path, 0)

    def compress(self) -> None:
        """A new name, then compressed under yet another one."""
        old = self.rename()
        packed = old.with_name(f"{old.name}.gz")
        status = old.stat()
        with old.open("rb") as plain, gzip.open(packed, "wb") as file:
            shutil.copyfileobj(plain, file)
        os.utime(packed, ns=(status.st_atime_ns, status.st_mtime_ns))
        old.unlink()

    def close(self) -> None:
        self._file.close()

    def _next_name(self) -> Path:
        self._number += 1
        return self.path.with_name(f"{self.path.name}.{self._number}")

    def _reopen(self) -> None:
        self._file.close()
        self._file = self.path.open("ab", buffering=0)
