"""CSV: every line is an event, skipped by rule, or named; a broken record costs one line."""

import io

import pytest

from app.intake.events import InvalidEvent
from app.intake.files import bounded_lines
from app.intake.formats.base import Header, Options
from app.intake.formats.csv_rows import read_csv
from app.intake.records import MAX_RECORD_LINES
from tests.support.settings import EVENT_BYTES

T = "2026-04-01T09:00:00Z"
HEADER = "id,agentId,issuedAt,note\n"


def read(text: str, tenant: str | None = "org-a") -> tuple[dict[int, str], dict[int, str]]:
    """The ids of events and the reasons of refusals, both by line."""
    lines = bounded_lines(io.BytesIO(text.encode()), EVENT_BYTES)
    events, refused = {}, {}
    for number, members, _ in read_csv(lines, Options(tenant, EVENT_BYTES)):
        if isinstance(members, Header):
            continue
        if isinstance(members, InvalidEvent):
            refused[number] = str(members)
        else:
            events[number] = members[0]
    assert not set(events) & set(refused)
    return events, refused


def row(name: str, note: str = "x") -> str:
    return f"{name},a1,{T},{note}\n"


BROKEN = {
    "a quote that is never closed": row("bad", '"curl'),
    "a quote that another one closes": row("bad", '"x') + row("e1") + row("bad", '"y'),
    "text behind a quoted cell": row("bad", '"x"y'),
    "a space behind a quoted cell": row("bad", '"x" '),
    "a quote that the end of another row closes": row("bad", '"x') + row("e1") + row("e2", 'y"'),
    "a quote that ends with too many cells": row("bad", '"x') + row("e1", 'y",z'),
    "a cell too many": row("bad", "Acme, Inc"),
    "a cell too few": f"bad,a1,{T}\n",
    "one cell": "bad\n",
    "only a quote": '"\n',
    "a quote in front": '"' + row("bad"),
    "a carriage return within": row("bad", 'x\ry"z"'),
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_broken_record_costs_no_other_line(text: str) -> None:
    """Reading goes on at the second line of a broken record; every line is an event or named."""
    whole = HEADER + row("before") + text + row("after1") + row("after2", '"quoted, cell"')
    events, refused = read(whole)
    lines = whole.count("\n")
    assert set(events) | set(refused) == set(range(2, lines + 1))
    assert {"before", "after1", "after2"} <= set(events.values())
    assert 3 in refused
    assert "bad" not in events.values()


def test_each_of_5000_lines_with_open_quotes_is_accounted_for() -> None:
    """Open quotes here and there take no other line with them."""
    lines = [row(f"e{n}", '"open' if n % 7 == 0 else "x") for n in range(5_000)]
    events, refused = read(HEADER + "".join(lines))
    assert set(events) | set(refused) == set(range(2, 5_002))
    assert len(refused) == len(range(0, 5_000, 7))
    assert all((number - 2) % 7 == 0 for number in refused)


def test_open_quotes_are_not_sought_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The work for a file is proportional to its lines, whatever its quotation marks."""
    texts = []

    def text(line: bytes) -> str:
        texts.append(line)
        return line.decode()

    monkeypatch.setattr("app.intake.records._text", text)
    events, refused = read(HEADER + 'x""","c\n' * 20_000 + row("e1"))
    assert (list(events.values()), len(refused)) == (["e1"], 20_000)
    assert len(texts) < 3 * 20_000


def test_a_quoted_cell_may_contain_line_breaks() -> None:
    """RFC 4180: a quoted cell may have line breaks, separators and doubled quotation marks."""
    cell = '"two\r\nlines, a ""quote""\n\nand, more"'
    events, refused = read(HEADER + row("e1", cell) + row("e2"))
    assert (events, refused) == ({2: "e1", 6: "e2"}, {})


@pytest.mark.parametrize(
    ("lines", "whole"),
    [(MAX_RECORD_LINES, True), (MAX_RECORD_LINES + 1, False)],
)
def test_a_record_has_a_limited_number_of_lines(lines: int, whole: bool) -> None:
    """A record ends within `MAX_RECORD_LINES` lines; a longer one is broken."""
    cell = '"' + "\n" * (lines - 1) + '"'
    events, refused = read(HEADER + row("e1", cell) + row("e2"))
    assert ("e1" in events.values()) == whole
    assert (2 in refused) == (not whole)
    assert "e2" in events.values()


@pytest.mark.parametrize(("size", "whole"), [(EVENT_BYTES, True), (EVENT_BYTES + 9, False)])
def test_a_record_has_a_limited_number_of_bytes(size: int, whole: bool) -> None:
    """A record over several lines has at most `MAX_EVENT_BYTES`."""
    start = f'e1,a1,{T},"\n'
    record = start + "x" * (size - len(start) - 2) + '"\n'
    assert len(record) == size
    events, refused = read(HEADER + record + row("e2"))
    assert ("e1" in events.values()) == whole
    assert bool(refused) == (not whole)
    assert "e2" in events.values()


def test_a_line_above_the_limit_is_named() -> None:
    events, refused = read(HEADER + row("e1", "x" * EVENT_BYTES) + row("e2"))
    assert (list(events), list(refused)) == ([3], [2])
    assert str(EVENT_BYTES) in refused[2]


WRONG_HEADERS = {
    "none": "n1,a1,2026-11-01T10:00:00Z\nn2,a1,2026-11-01T10:00:00Z\n",
    "nothing": "",
    "blank lines": "\n\n  \n",
    "a column is missing": "id,agentId,note\n",
    "a column twice": "id,agentId,issuedAt,id\n",
    "a column twice, in another case": "id,agentId,ID,issuedAt\n",
    "another separator": "id|agentId|issuedAt\n",
    "JSON": '{"id": "e1", "agentId": "a", "issuedAt": "2026-04-01T09:00:00Z"}\n',
    "an open quote": 'id,agentId,issuedAt,"note\n',
    "a long line": "id,agentId,issuedAt," + "x" * EVENT_BYTES + "\n",
    "many cells": "id,agentId,issuedAt" + "," * 60_000 + ",id\n",
    "not UTF-8": "\x00\x01\x02\n",
    "carriage returns": f"id,agentId,issuedAt\re1,a1,{T}\r",
}


@pytest.mark.parametrize("header", WRONG_HEADERS.values(), ids=WRONG_HEADERS)
def test_a_wrong_header_is_named_in_one_line(header: str) -> None:
    """Without a good header the file is refused in one line, and no line of it is an event."""
    events, refused = read(header + row("e1") * 3)
    assert events == {}
    assert len(refused) == 1


def test_the_organization_is_a_column_or_given() -> None:
    """A file without the column `organizationId` needs `--organization`."""
    text = HEADER + row("e1")
    assert read(text) == ({2: "e1"}, {})
    events, refused = read(text, None)
    assert (events, list(refused)) == ({}, [1])
    assert "organizationId" in refused[1]


@pytest.mark.parametrize(
    ("header", "spaced"),
    [
        ("id,agentId,issuedAt,user agent", False),
        ("id, agentId, issuedAt, user agent", True),
        ("id ,agentId ,issuedAt ,user agent", True),
        ('"id", "agentId", "issuedAt", "user agent"', True),
    ],
)
def test_spaces_belong_to_a_cell_unless_the_header_has_them(header: str, spaced: bool) -> None:
    """Spaces around cells are removed if there are spaces around the names of the header."""
    events, refused = read(f"{header}\n e1 ,a1,{T}, x\n")
    assert (events, refused) == ({2: "e1" if spaced else " e1 "}, {})
    if spaced:
        assert read(f'{header}\r\ne1, "a1", {T}, "x, y"\r\n') == ({2: "e1"}, {})


def test_columns_of_other_names_may_occur_twice() -> None:
    events, refused = read(f"id,note,agentId,note,issuedAt,\ne1,x,a1,y,{T},\n")
    assert (events, refused) == ({2: "e1"}, {})


def test_a_quotation_mark_within_a_plain_cell_is_text() -> None:
    events, refused = read(HEADER + row("e1", 'a 5" disk') + row("e2"))
    assert (events, refused) == ({2: "e1", 3: "e2"}, {})
