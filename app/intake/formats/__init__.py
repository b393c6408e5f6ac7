"""Log formats: one file for each format, and one line for each in the registry below."""

from collections.abc import Callable, Iterator

from app.intake.formats.base import Options, Record
from app.intake.formats.csv_rows import read_csv
from app.intake.formats.ndjson import read_ndjson

FORMATS: dict[str, Callable[[Iterator[bytes], Options], Iterator[Record]]] = {
    "ndjson": read_ndjson,
    "csv": read_csv,
}
