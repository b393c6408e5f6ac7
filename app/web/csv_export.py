"""CSV export of reports (RFC 4180): a header of the members' names, then a line for each point."""

import csv
import io
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from flask import Response

MIMETYPE = "text/csv"
# A spreadsheet runs a cell that begins with one of these as a formula, even if it is a name.
_FORMULA_PREFIXES = ("=", "+", "-", "@")


def csv_response(
    name: str, kind: type[msgspec.Struct], points: Sequence[msgspec.Struct]
) -> Response:
    """Points of one kind as a CSV file called ``name``."""
    return csv_file(name, csv_points(kind, points))


def csv_points(kind: type[msgspec.Struct], points: Sequence[msgspec.Struct]) -> bytes:
    """Points of one kind as CSV, below the names of their members."""
    rows = (msgspec.structs.astuple(point) for point in points)
    return csv_text(kind.__struct_encode_fields__, rows).encode()


def csv_file(name: str, data: bytes) -> Response:
    """CSV as a download called ``name``."""
    response = Response(data, mimetype=MIMETYPE)
    response.headers["Content-Disposition"] = f'attachment; filename="{name}.csv"'
    response.headers["Cache-Control"] = "no-store"
    return response


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """CSV with lines that end with CR and LF; ``None`` is an empty cell."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(columns)
    writer.writerows([_without_formula(cell) for cell in row] for row in rows)
    return file.getvalue()


def _without_formula(cell: object) -> object:
    """The cell, with an apostrophe in front if a spreadsheet would run it as a formula."""
    if not isinstance(cell, str) or not cell:
        return cell
    is_formula = cell.startswith(_FORMULA_PREFIXES) or unicodedata.category(cell[0]) == "Cc"
    return f"'{cell}" if is_formula else cell
