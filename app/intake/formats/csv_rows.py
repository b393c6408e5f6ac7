"""CSV: one event a row, below a header of member names."""

import csv
from collections.abc import Iterator

from app.intake.events import InvalidEvent, Members, check_members
from app.intake.formats.base import BOM, Record


def read_csv(lines: Iterator[bytes]) -> Iterator[Record]:
    """Records of a CSV file. Columns are named as an event's members; other columns are ignored."""
    number = 0

    def texts() -> Iterator[str]:
        nonlocal number
        for number, line in enumerate(lines, start=1):
            text = line.removeprefix(BOM) if number == 1 else line
            # Invalid UTF-8 becomes a lone surrogate, which no id can have.
            yield text.decode(errors="surrogateescape")

    reader = csv.DictReader(texts())
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield number, InvalidEvent("", str(error))
        else:
            yield number, _cells({name: cell for name, cell in row.items() if name and cell})


def _cells(row: dict[str, str]) -> Members | InvalidEvent:
    text = "".join(row.values())
    try:
        return check_members(row, plain=text.isascii() and text.isprintable())
    except InvalidEvent as problem:
        return problem
