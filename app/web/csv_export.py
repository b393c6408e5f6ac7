"""Reports as CSV (RFC 4180): a header with the members' names, then a line for each point."""

import csv
import io
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from flask import Response

MIMETYPE = "text/csv"
# A spreadsheet takes a cell that begins so for a formula, and would calculate what an agent's
# name tells it to.
_FORMULA = ("=", "+", "-", "@")


def csv_response(
    name: str, kind: type[msgspec.Struct], points: Sequence[msgspec.Struct]
) -> Response:
    """Points of one kind as a file called ``name``."""
    return csv_file(name, csv_points(kind, points))


def csv_points(kind: type[msgspec.Struct], points: Sequence[msgspec.Struct]) -> bytes:
    """Points of one kind, below the names of their members."""
    rows = (msgspec.structs.astuple(point) for point in points)
    return csv_text(kind.__struct_encode_fields__, rows).encode()


def csv_file(name: str, data: bytes) -> Response:
    """A file called ``name``, to be saved."""
    response = Response(data, mimetype=MIMETYPE)
    response.headers["Content-Disposition"] = f'attachment; filename="{name}.csv"'
    response.headers["Cache-Control"] = "no-store"
    return response


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Lines that end with CR and LF; ``None`` is an empty cell."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(columns)
    writer.writerows([_defused(cell) for cell in row] for row in rows)
    return file.getvalue()


def _defused(cell: object) -> object:
    if not isinstance(cell, str) or not cell:
        return cell
    harmful = cell.startswith(_FORMULA) or unicodedata.category(cell[0]) == "Cc"
    return f"'{cell}" if harmful else cell
