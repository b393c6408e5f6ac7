"""The table of figures, as text for the terminal and as Markdown for ``docs/performance.md``."""

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.figures import BenchmarkError, Failure, Figure

Line = Figure | Failure

HEAD = ("row", "work", "ours", "compared with", "rival", "ratio", "to reach", "reached")
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"


def text_table(lines: Sequence[Line]) -> str:
    """The table as text, with aligned columns."""
    cells = [HEAD, *(line.cells for line in lines)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )


def markdown_table(lines: Sequence[Line]) -> str:
    """The table as Markdown."""
    rows = [HEAD, ("---",) * len(HEAD), *(line.cells for line in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def circumstances(scale: float, repetitions: int, seconds: float, postgresql: str) -> str:
    """A sentence with the date, the scale, the machine and the versions of a measurement."""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("gunicorn", "flask", "sqlalchemy"))
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, scale {scale:g}, {repetitions} repetitions,"
        f" {seconds:g} s of load each; {os.cpu_count()} cores, Linux {platform.release()},"
        f" Python {platform.python_version()}, PostgreSQL {postgresql}, {libraries}."
    )


def write_table(path: Path, lines: Sequence[Line], circumstance: str) -> None:
    """Replace the text between the two markers of a document.

    Raises:
        BenchmarkError: the document lacks a marker.
    """
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BenchmarkError(f"{path} lacks {BEGIN} or {END}")
    body = f"\n{circumstance}\n\n{markdown_table(lines)}\n"
    path.write_text(f"{before}{BEGIN}{body}{END}{after}")
