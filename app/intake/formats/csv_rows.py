"""CSV: one event a record, below a header that names the columns.

id,organizationId,agentId,issuedAt
event-1,org-1,agent-1,2026-04-01T09:00:00Z
"""

from collections.abc import Iterator, Sequence

from app.dates import parse_instant
from app.intake.events import MEMBERS, InvalidEvent, Members, check_members
from app.intake.formats.base import Header, Options, Record
from app.intake.records import SEPARATORS, DelimitedRecords

REQUIRED = ("id", "agentId", "issuedAt")
_COLUMNS = {name.casefold(): name for name in MEMBERS}


def read_csv(lines: Iterator[bytes], options: Options) -> Iterator[Record]:
    """Records of a CSV file. Columns are named as an event's members; other columns are ignored.

    The separator is the one that tells most columns of the header apart.
    """
    records = DelimitedRecords(lines, options.max_bytes)
    first = records.first_line().rstrip("\r\n")
    records.separator = max(SEPARATORS, key=lambda one: len(set(_columns(first.split(one))) - {""}))
    records.spaced = any(name != name.strip(" ") for name in first.split(records.separator))
    header = next(iter(records), [])
    if isinstance(header, InvalidEvent):
        problem: InvalidEvent | None = header
    else:
        columns = _columns(header)
        problem = _problem(columns, options.tenant_id)
    if problem is not None:
        problem.unread = "file"
        yield max(records.number, 1), problem, records.text()
        return
    yield records.number, Header(), records.text()
    for cells in records:
        if isinstance(cells, list) and (again := _header_again(cells, options.tenant_id)):
            columns = again
            yield records.number, Header(), records.text()
            continue
        members = _members(cells, columns, records)
        yield records.number, members, records.text()


def _header_again(cells: list[str], tenant_id: str | None) -> list[str] | None:
    """The columns that a row names, as the header of a second file behind the first does.

    No event is taken for a header: the name of a column is no time.
    """
    if len(cells) < len(REQUIRED) or "issuedat" not in "".join(cells).casefold():
        return None
    columns = _columns(cells)
    return None if _problem(columns, tenant_id) else columns


def has_columns(line: bytes) -> bool:
    """Whether a line is the header of a CSV file of events, complete or not."""
    text = line.decode(errors="surrogateescape").rstrip("\r\n")
    return any(len(set(_columns(text.split(one))) - {""}) > 1 for one in SEPARATORS)


def _columns(header: Sequence[str]) -> list[str]:
    """The member of each column, without regard to spaces and case; empty if there is none."""
    return [_COLUMNS.get("".join(name.strip(' "\ufeff').split()).casefold(), "") for name in header]


def _problem(columns: list[str], tenant_id: str | None) -> InvalidEvent | None:
    """Why no line below the header can be read."""
    needed = REQUIRED if tenant_id is not None else (*REQUIRED, "organizationId")
    if missing := [name for name in needed if name not in columns]:
        return InvalidEvent(
            "",
            f"the first line must name the columns {', '.join(needed)}, and lacks"
            f" {', '.join(missing)}; the file is not read",
        )
    if twice := [name for name in columns if name and columns.count(name) > 1]:
        return InvalidEvent("", f"the header has the column {twice[0]} twice; the file is not read")
    return None


def _members(
    cells: list[str] | InvalidEvent, columns: list[str], records: DelimitedRecords
) -> Members | InvalidEvent:
    if isinstance(cells, InvalidEvent):
        return cells
    if len(cells) != len(columns):
        records.read_again()
        return InvalidEvent(
            "",
            f"has {len(cells)} cells, but the header has {len(columns)}; quote a cell that contains"
            " the separator",
        )
    if any(_is_event(records.cells(line), columns) for line in records.continuation):
        records.read_again()
        return InvalidEvent("", "has a quoted cell that contains other events; close the cell")
    return _event(cells, columns)


def _event(cells: list[str], columns: list[str]) -> Members | InvalidEvent:
    row = {name: cell for name, cell in zip(columns, cells, strict=True) if name and cell}
    text = "".join(row.values())
    try:
        return check_members(row, plain=text.isascii() and text.isprintable())
    except InvalidEvent as problem:
        return problem


def _is_event(cells: list[str], columns: list[str]) -> bool:
    """Whether a line of a quoted cell is an event by itself, so that the cell lacks its end."""
    if len(cells) != len(columns):
        return False
    members = _event(cells, columns)
    if isinstance(members, InvalidEvent):
        return False
    try:
        parse_instant(str(members[2]))
    except ValueError:
        return False
    return True
