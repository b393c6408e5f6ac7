"""CSV export of reports (RFC 4180): a header of the members' names, then a line for each point."""

import csv
import io
import re
from collections.abc import Generator, Iterable, Sequence
from datetime import date
from typing import Any

import msgspec
from flask import Response

MIMETYPE = "text/csv"
# How many cells differ from the stored text, because they were escaped.
ESCAPED = "X-Escaped-Cells"
_BOM = "\ufeff"  # with it, spreadsheets read UTF-8
# A spreadsheet runs a cell as a formula if it begins with one of these signs, even if it is a name.
# Some also accept the full-width, small, raised and lowered forms, and many ignore a control
# character in front. Where semicolons separate cells, a cell also begins after each one, and its
# quotation marks do not count.
_SIGNS = (
    r"=+\-@"
    r"\uff1d\uff0b\uff0d\uff20"  # full-width
    r"\ufe66\ufe62\ufe63\ufe6b"  # small
    r"\u207c\u207a\u207b\u208c\u208a\u208b\u2212"  # raised, lowered, and the minus sign
)
_BEGIN = rf"[{_SIGNS}\x00-\x1f\x7f-\x9f]"
_FORMULA = re.compile(rf"^(?={_BEGIN})|;(?=\"*{_BEGIN})")
# The same in lines of CSV, where a quotation mark may stand in front.
_IN_LINES = re.compile(rf"(?:^|[,;])\"*{_BEGIN}", re.MULTILINE)


class CSV:
    """CSV in pieces, so that a long report is never in memory as a whole.

    ``escaped`` counts the cells in which an apostrophe stands in front of a formula.
    """

    def __init__(self, columns: Sequence[str], *, bom: bool = False) -> None:
        self.escaped = 0
        self._columns = columns
        self._begin = _BOM if bom else ""

    def pieces(self, batches: Iterable[Iterable[Sequence[Any]]]) -> Generator[bytes, None, None]:
        """The header, then each batch of rows; lines end with CR and LF, ``None`` is empty."""
        self.escaped = 0
        yield (self._begin + _lines([self._columns])).encode()
        for rows in batches:
            kept = list(rows)
            lines = _lines(kept)
            # Most batches have no formula, and one search is faster than one for each cell.
            if _IN_LINES.search(lines.replace("\r\n", "\n")):
                lines = _lines(map(self._row, kept))
            yield lines.encode()

    def _row(self, row: Sequence[Any]) -> list[Any]:
        return [self._cell(cell) if isinstance(cell, str) else cell for cell in row]

    def _cell(self, text: str) -> str:
        escaped, times = _FORMULA.subn(r"\g<0>'", text)
        self.escaped += bool(times)
        return escaped


def csv_of(kind: type[msgspec.Struct], *, bom: bool = False) -> CSV:
    """CSV below the names of the members of ``kind``."""
    return CSV(kind.__struct_encode_fields__, bom=bom)


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Rows as one CSV text."""
    return b"".join(CSV(columns).pieces([rows])).decode()


def file_name(report: str, first: date | None, last: date | None) -> str:
    """The name of a file, without ending: the report, and its days if the request names them."""
    return report if first is None or last is None else f"{report}-{first}--{last}"


def as_download(response: Response, name: str, escaped: int) -> Response:
    """The response, as a file called ``name`` that no cache stores."""
    response.headers["Content-Disposition"] = f'attachment; filename="{name}.csv"'
    response.headers["Cache-Control"] = "no-store"
    response.headers[ESCAPED] = str(escaped)
    return response


def _lines(rows: Iterable[Sequence[Any]]) -> str:
    file = io.StringIO()
    csv.writer(file).writerows(rows)
    return file.getvalue()
