"""What an import prints: refused records, warnings about files, and the summary of a trial."""

import os
import stat
from collections import Counter
from types import TracebackType
from typing import Any, Self

from app.cli.base import warn
from app.errors import ValidationError
from app.intake.events import Event
from app.intake.formats.base import OTHER_FORMAT
from app.intake.formats.documents import UNREADABLE
from app.intake.importer import Imported, Refused

STDIN = "-"
SHOWN_REFUSALS = 100
SHOWN_AGENTS = 20


class Rejects:
    """The file of refused records, which can be imported again once they are mended.

    It may hold people's data, so only its owner can read it. If it cannot be written, a line says
    so once, and the import goes on.
    """

    def __init__(self, path: str, inputs: tuple[str, ...]) -> None:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._file = os.fdopen(descriptor, "wb")
            try:
                _empty(descriptor, path, inputs)
            except BaseException:
                self._file.close()
                raise
        except OSError as error:
            raise ValidationError(
                f"{path}: {error.strerror}; name another file for --rejects"
            ) from None
        self._path = path
        self._header = b""
        self._left_out = 0
        self._is_broken = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            self._file.close()
        except OSError as problem:
            self._fail(problem)
        if self._left_out:
            warn(
                f"{self._path}: lacks {self._left_out} refused records, which are too large or of"
                " a damaged document"
            )

    def add(self, refused: Refused) -> None:
        """Write a record on a line of its own, below the header that it needs."""
        if not refused.text.strip():
            self._left_out += 1
            return
        if refused.header not in (b"", self._header):
            self._header = refused.header
            self._write(refused.header)
        self._write(refused.text if refused.header else _on_one_line(refused.text))

    def _write(self, text: bytes) -> None:
        if self._is_broken:
            return
        try:
            self._file.write(text.rstrip(b"\r\n") + b"\n")
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        if not self._is_broken:
            self._is_broken = True
            warn(
                f"{self._path}: lacks refused records: {error.strerror}; import the files again"
                " with another --rejects"
            )


def _empty(descriptor: int, path: str, inputs: tuple[str, ...]) -> None:
    """Empty a file of rejects for its owner, unless it is one of the inputs.

    The files are compared once the file is open, so that no other name or link can deceive.
    """
    status = os.fstat(descriptor)
    if any(one is not None and os.path.samestat(status, one) for one in map(_status, inputs)):
        raise ValidationError(f"{path}: is read itself; name another file for --rejects")
    if stat.S_ISREG(status.st_mode):  # a device as /dev/null belongs to others, too
        os.fchmod(descriptor, 0o600)
        os.ftruncate(descriptor, 0)


def _status(source: str) -> os.stat_result | None:
    """The status of an input; ``None`` if it is closed or was removed."""
    try:
        return os.fstat(0) if source == STDIN else os.stat(source)
    except OSError:
        return None


def _on_one_line(text: bytes) -> bytes:
    """A record of a document without its line breaks; JSON has none within its texts."""
    text = text.strip()
    return b" ".join(text.split(b"\n")) if text[:1] in (b"{", b"[") else text


class Refusals:
    """Prints the first refused records, since a wrong file may have millions."""

    def __init__(self, rejects: Rejects | None) -> None:
        self._count = 0
        self._rejects = rejects
        self.unreadable = 0  # of the current file
        self._first: list[Refused] = []

    def show(self, refused: Refused) -> None:
        self._count += 1
        self.unreadable += refused.reason.startswith(UNREADABLE)
        if self._count <= SHOWN_REFUSALS:
            self._first.append(refused)
            warn(f"{refused.source}:{refused.line}: {refused.reason}")
        elif self._count == SHOWN_REFUSALS + 1:
            warn("further refused lines are counted, not listed")
        if self._rejects is not None:
            self._rejects.add(refused)

    def listed(self) -> list[dict[str, Any]]:
        """The first refused records for ``--json``."""
        return [{"file": one.source, "line": one.line, "reason": one.reason} for one in self._first]


class Trial:
    """The events that an import would store: counted by day, organization and agent."""

    def __init__(self) -> None:
        self._days = Counter[str]()
        self._agents = Counter[tuple[str, str]]()

    def add(self, events: list[Event]) -> None:
        self._days.update(event.issued_at.date().isoformat() for event in events)
        self._agents.update((event.tenant_id, event.agent_id) for event in events)

    def result(self) -> dict[str, Any]:
        """The counts for ``--json``."""
        return {
            "days": dict(sorted(self._days.items())),
            "organizations": dict(self._organizations().most_common()),
            "agents": [
                {"organizationId": tenant_id, "agentId": agent_id, "count": count}
                for (tenant_id, agent_id), count in self._agents.most_common()
            ],
        }

    def lines(self) -> list[str]:
        """The counts as text."""
        days = sorted(self._days.items())
        organizations = self._organizations().most_common()
        agents = [
            (f"{agent_id} of {tenant_id}", count)
            for (tenant_id, agent_id), count in self._agents.most_common(SHOWN_AGENTS)
        ]
        left_out = len(self._agents) - len(agents)
        lines = [*_section("days (UTC)", days), *_section("organizations", organizations)]
        lines += _section("agents", agents)
        return [*lines, f"  and {left_out} other agents"] if left_out else lines

    def _organizations(self) -> Counter[str]:
        organizations = Counter[str]()
        for (tenant_id, _), count in self._agents.items():
            organizations[tenant_id] += count
        return organizations


def _section(title: str, counts: list[tuple[str, int]]) -> list[str]:
    return [f"{title}:", *(f"  {name}: {count}" for name, count in counts)] if counts else []


def difference(after: Imported, before: Imported) -> Imported:
    """What one file has added to the totals."""
    return Imported(
        after.received - before.received,
        after.accepted - before.accepted,
        after.duplicates - before.duplicates,
        after.refused - before.refused,
        after.skipped - before.skipped,
    )


def doubt(source: str, provider: str, of_file: Imported, unreadable: int) -> str | None:
    """A warning about a file that is probably not what its format expects.

    Args:
        provider: the name of a provider's format, or empty for the service's own events.
        unreadable: how many of the refused records are of no format.
    """
    found = of_file.accepted + of_file.duplicates
    if provider and of_file.skipped[OTHER_FORMAT] + unreadable == of_file.received:
        return f"{source}: has no event of the format {provider}; check --format"
    if provider and of_file.duplicates * 2 > found:
        return (
            f"{source}: {of_file.duplicates} of {found} events are duplicates; unless the file was"
            " imported before, check that its ids were not replaced"
        )
    return None


def summary(totals: Imported, *, is_trial: bool) -> str:
    """The totals in one line."""
    kept = (
        f"{totals.accepted} would be imported, less duplicates"
        if is_trial
        else f"{totals.accepted} stored, {totals.duplicates} duplicates"
    )
    text = f"{totals.received} events: {kept}, {totals.refused} refused"
    if skipped := sum(totals.skipped.values()):
        reasons = ", ".join(f"{count} {reason}" for reason, count in totals.skipped.most_common())
        return text.replace(" events:", " records:", 1) + f", {skipped} skipped ({reasons})"
    return text
