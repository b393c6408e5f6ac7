"""Detection: which format the first records of a file have."""

import zlib
from collections.abc import Iterator, Mapping
from itertools import chain, islice

from app.intake.events import InvalidEvent
from app.intake.formats.base import NATIVE_NAMES, OTHER_FORMAT, Format, Header, Options, Skipped

# A log may begin with many lines of other programs.
FEW_LINES, MANY_LINES = 100, 10_000
MANY_BYTES = 1024 * 1024


def tell(
    formats: Mapping[str, Format], lines: Iterator[bytes], options: Options, *, is_pipe: bool
) -> tuple[list[str], Iterator[bytes]]:
    """The names of the formats that know one of the first records; and all lines of the file.

    Args:
        is_pipe: stop at the first record that a format knows, because later ones may not have
            arrived yet.
    """
    taken: list[bytes] = []
    wanted = 1 if is_pipe else FEW_LINES
    names: list[str] = []
    while not names and wanted <= MANY_LINES and sum(map(len, taken)) < MANY_BYTES:
        known = len(taken)
        lines = _append(lines, wanted - known, taken)
        if len(taken) == known:
            break
        wanted *= 2 if is_pipe else 10
        others = [name for name in formats if name not in NATIVE_NAMES[1:]]
        names = [name for name in others if _knows(formats[name], taken, options)]
    return names, chain(taken, lines)


def _append(lines: Iterator[bytes], count: int, taken: list[bytes]) -> Iterator[bytes]:
    """Take lines; return the others. An error is raised in its place: it is the file's reader's."""
    try:
        taken += islice(lines, count)
    except (EOFError, OSError, UnicodeError, zlib.error) as error:
        return _raised(error)
    return lines


def _raised(error: Exception) -> Iterator[bytes]:
    def line() -> bytes:
        raise error

    return iter(line, b"")


def _knows(file_format: Format, lines: list[bytes], options: Options) -> bool:
    # What the command says about organizations does not make a format.
    options = options._replace(tenant_id=options.tenant_id or "detection")
    return any(_is_known(outcome) for _, outcome, _ in file_format(iter(lines), options))


def _is_known(outcome: object) -> bool:
    if isinstance(outcome, InvalidEvent):
        return bool(outcome.field) and outcome.message.startswith(("no ", "unusable "))
    if isinstance(outcome, Skipped):
        return outcome.reason != OTHER_FORMAT
    return isinstance(outcome, tuple) and not isinstance(outcome, Header)
