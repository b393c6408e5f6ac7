"""Documents: records on lines, in arrays and in objects, in any layout, complete or not."""

import io
import json
import random
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from app.intake.events import InvalidEvent
from app.intake.files import bounded_lines
from app.intake.formats.base import Options
from app.intake.formats.documents import Batch, read_texts
from app.intake.formats.paths import parse_path

LIMIT = 1024
BATCHES: list[Batch] = [parse_path("records"), parse_path("data.items"), parse_path("a[].b[].c")]


def read(
    text: str | bytes, limit: int = LIMIT, most: int = 10**9, batches: list[Batch] = BATCHES
) -> list[tuple[int, Any]]:
    """The line and the value of each record; `text` for what is none, `error` for a refusal."""
    data = text.encode() if isinstance(text, str) else text
    lines = bounded_lines(io.BytesIO(data), limit)
    found = []
    for number, raw, value in read_texts(lines, Options(None, limit, most), batches):
        if isinstance(value, dict) and raw is not None:
            assert json.loads(raw) == value or "\\ud8" in raw.decode()
        found.append(
            (
                number,
                "error" if isinstance(value, InvalidEvent) else "text" if value is None else value,
            )
        )
    return found


def values(text: str | bytes, **options: Any) -> list[Any]:
    return [value for _, value in read(text, **options)]


ONE, TWO, THREE = {"n": 1}, {"n": 2, "s": 'a"]}{[,\\'}, {"n": 3, "in": {"x": [1, {"y": None}]}}


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ('{"n":1}\n{"n":2}\n{"n":3}\n', [1, 2, 3]),
        ('\n{"n":1}\n\n  {"n":2}\r\n\t{"n":3}', [2, 4, 5]),
        ('[{"n":1},{"n":2},{"n":3}]', [1, 1, 1]),
        ('[\n{"n":1},\n{"n":2}\n,\n{"n":3}]\n', [2, 3, 5]),
        ('{"records":[{"n":1},{"n":2}]}\n{"n":3}\n', [1, 1, 2]),
        ('{"records":[{"n":1}]}\n{"records":[{"n":2},{"n":3}]}', [1, 2, 2]),
        ('{"x":[1],"data":{"y":{},"items":[{"n":1},{"n":2},{"n":3}],"z":1}}', [1, 1, 1]),
        (
            '{"a":[{"b":[{"c":[{"n":1}]},{"x":1}]},{"b":[]},{"b":[{"c":[{"n":2},{"n":3}]}]}]}',
            [1] * 3,
        ),
        ('{"n":1}{"n":2} {"n":3}', [1, 1, 1]),
        ('[{"n":1}][{"n":2}]\n[\n{"n":3}\n]', [1, 1, 3]),
        ('{\n"n":1\n}\n{\n"n":2\n}{\n"n":3}', [1, 4, 6]),
        ('[{"records":[{"n":1}]},{"n":2},{"records":[{"n":3}]}]', [1, 1, 1]),
        ('[]\n{"records":[]}\n[{"n":1},{"n":2},{"n":3}]\n', [3, 3, 3]),
    ],
)
def test_any_layout_has_the_same_records(text: str, numbers: list[int]) -> None:
    """Records come with the number of the line on which they begin."""
    assert read(text) == list(zip(numbers, [{"n": 1}, {"n": 2}, {"n": 3}], strict=True))


@pytest.mark.parametrize("seed", range(40))
def test_every_layout_of_any_document_is_read(seed: int) -> None:
    """Documents of any indentation and size equal what the json module reads."""
    dice = random.Random(seed)
    limit = dice.choice([600, 5000])
    records = [_record(dice, limit - 40) for _ in range(dice.randrange(1, 60))]
    indent = dice.choice([None, 0, 1, 4])
    filler = {"note": "x" * dice.choice([0, 10, 2000]), "more": {"k": [']}\\"', 1.5, None] * 9}}
    wrapped = dice.choice(
        [
            records,
            filler | {"records": records},
            {"records": records} | filler,
            {"data": filler | {"items": records}},
            {"a": [filler, {"b": [{"c": records[:3]}, {"c": records[3:]}]}]},
        ]
    )
    text = json.dumps(wrapped, indent=indent, ensure_ascii=dice.random() < 0.5)
    if dice.random() < 0.5:
        text = text.replace("\n", "\r\n") + "\n" * dice.randrange(3)
    after = {"n": "after"}
    assert values(f"{text}\n{json.dumps(after)}\n", limit=limit) == [*records, after]


def _record(dice: random.Random, most: int) -> dict[str, Any]:
    texts = [
        "",
        'a"b',
        "\\",
        "ü€😀",
        "]}",
        "{[",
        "\u2028",
        "x" * dice.randrange(max(most // 4, 1)),
        "\\u0041",
    ]
    return {
        f"k{number}": dice.choice([*texts, 1, -1.5e9, True, None, [], [[1]], {}, {"a": {"b": []}}])
        for number in range(dice.randrange(1, 4))
    }


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"n":1}\n{"n":\n{"n":3}\n', [(1, ONE), (2, "error"), (3, {"n": 3})]),
        ('{"n":1,\n{"n":2}\n', [(1, "error"), (2, {"n": 2})]),
        ('{"n":"x\n{"n":2}\n', [(1, "error"), (2, {"n": 2})]),
        ('{"n":1}\n{"n":2', [(1, ONE), (2, "error")]),
        ('[{"n":1},{"n":', [(1, ONE), (1, "error")]),
        ('[{"n":1}', [(1, ONE), (1, "error")]),
        ('[\n{"n":1},\n{"s":"x', [(2, ONE), (3, "error")]),
        ('[\n{"n":1},\n{"s":"x"', [(2, ONE), (3, "error")]),
        ('[\n{"n":1},\n{"s":', [(2, ONE), (3, "error")]),
        ('[{"n":1},\n{"n":2}\n', [(1, ONE), (2, {"n": 2}), (3, "error")]),
        ('{"records":[{"n":1}]', [(1, ONE), (1, "error")]),
        ('[{"n":1},{"n":tru},{"n":3}]', [(1, ONE), (1, "error"), (1, {"n": 3})]),
        ('[{"n":1},5,null,"x",[1],{"n":3}]', [(1, ONE), *[(1, "error")] * 4, (1, {"n": 3})]),
        ('[{"n":1} {"n":2}]\n{"n":3}\n', [(1, ONE), (1, "error"), (2, {"n": 3})]),
        ('[\n{"n":1}\n{"n":2}]\n{"n":3}\n', [(2, ONE), (3, "error")]),
        ("[1,2]\n[]\n5\n", [(1, "error"), (3, "text")]),
        ('text\n{"n":1}\nmore {"n":2}\n', [(1, "text"), (2, ONE), (3, "text")]),
        ('[2026-01-01] text\n{"n":1}\n', [(1, "error"), (2, ONE)]),
        ('{"n":1}}\n{"n":1}\n', [(1, ONE), (1, "text"), (2, ONE)]),
        ('{"n":NaN}\n{"n":Infinity}\n', [(1, "error"), (2, "error")]),
        ('{"n":01}\n', [(1, "error")]),
        ("{'n':1}\n", [(1, "error")]),
        ("\n \n\r\n", []),
        ("", []),
        ("[", [(1, "error")]),
        ("[]", []),
        ('[]\n{"records":[]}\n{"records":[],"data":{"items":[]}}\n{"n":1}', [(4, ONE)]),
        ("{", [(1, "error")]),
        ('{"records":{"n":1}}\n', [(1, {"records": {"n": 1}})]),
        ('{"records":null}\n', [(1, {"records": None})]),
        ('{"records":[{"n":1}],"records":[{"n":2}]}\n', [(1, {"n": 2})]),
    ],
)
def test_what_is_broken_is_named_and_the_rest_is_read(
    text: str, found: list[tuple[int, Any]]
) -> None:
    """A broken record is one error; a broken document ends there; the next lines are read."""
    assert read(text) == found


def test_values_that_the_fast_decoder_refuses_are_read() -> None:
    """A lone surrogate or a huge number in an ignored member does not cost the record."""
    for member in (r'"\ud800"', r'"x\udc00y"', "1e400", "-1e400", "9" * 400):
        record = f'{{"n":1,"x":{member}}}'
        for text in (f"{record}\n", record, f"[{record},{record}]", f'{{"records":[{record}]}}'):
            assert {value["n"] for value in values(text)} == {1}


def test_invalid_utf_8_and_deep_nesting_are_errors() -> None:
    """The records around them are read."""
    deep = "[" * 100_000
    for bad in (b'{"n":"\xff"}', b'{"n":' + deep.encode() + b"}", deep.encode(), b'{"a":' * 50_000):
        assert values(b'{"n":1}\n' + bad[:900] + b'\n{"n":2}\n')[-1] == {"n": 2}
        outcomes = values(b'{"n":1}\n' + bad + b'\n{"n":2}\n')
        assert outcomes[0] == ONE
        assert outcomes[-1] == {"n": 2}
        assert set(map(str, outcomes[1:-1])) == {"error"}


def test_wrapped_batches_have_a_limited_depth() -> None:
    """Batches within batches do not exhaust the stack."""
    text = '{"records":[' * 400 + '{"n":1}' + "]}" * 400
    assert all(isinstance(value, dict) or value == "error" for value in values(text, limit=10**6))
    assert values('{"records":[' * 3 + '{"n":1}' + "]}" * 3) == [ONE]


@pytest.mark.parametrize("indent", [None, 1])
def test_batches_share_the_arrays_on_their_way(indent: int | None) -> None:
    """Records of both batches are found in any layout, and in a document of any size."""
    batches = [parse_path("a[].x"), parse_path("a[].y.z"), parse_path("b")]
    for size in (0, 3 * LIMIT):
        many = [{"x": [ONE], "y": {"z": [TWO]}, "note": "n" * size}, {"y": {"z": [THREE]}}, 5]
        text = json.dumps({"b": [{"n": 0}], "a": many}, indent=indent)
        found = values(text, batches=batches)
        assert sorted(found, key=lambda one: one["n"]) == [{"n": 0}, ONE, TWO, THREE]


def test_a_batch_names_arrays_exactly() -> None:
    """An array in the place of an object on the way is no batch, in a document of any size."""
    for size in (0, 3 * LIMIT):
        found = values(json.dumps({"data": [ONE], "note": "n" * size, "records": [TWO]}))
        assert found == [TWO]


def test_a_record_above_the_limit_is_refused_alone() -> None:
    """In lines, arrays and objects, the next record is read."""
    large = json.dumps({"x": "y" * 3 * LIMIT})
    for text in (
        f'{large}\n{{"n":1}}\n',
        f'[{large},{{"n":1}}]',
        f'[\n{large},\n{{"n":1}}\n]',
        f'{{"skip":{large},"records":[{large},{{"n":1}}],"more":{large}}}',
    ):
        assert values(text) == ["error", ONE]
    for letter, found in (("z", ["error", ONE]), (" ", [ONE])):
        assert values(letter * 5 * LIMIT + '\n{"n":1}\n') == found
    assert read(" " * 5 * LIMIT + '{"n":1}\n{"n":1}\n') == [(1, "error"), (2, ONE)]
    exact = json.dumps({"x": "y" * (LIMIT - 9)})
    assert len(exact) == LIMIT
    assert values(f'{exact}\n{exact[:-2]}y"}}\n{exact}\r\n') == [
        json.loads(exact),
        "error",
        json.loads(exact),
    ]


def test_a_document_above_its_limit_ends_there() -> None:
    """Records before the limit are read, then the document is refused; the next line is read."""
    text = json.dumps([{"n": number} for number in range(10_000)])
    found = values(f'{text}\n{{"n":-1}}\n', most=100_000)
    assert found[0] == {"n": 0}
    assert found[-2:] == ["error", {"n": -1}]
    assert 5_000 < len(found) < 10_002


def test_a_large_object_of_small_members_is_not_kept() -> None:
    """Its text moves through a small window. To keep all of it would take quadratic time."""

    def lines() -> Iterator[bytes]:
        yield b'{"k":1\n'
        for number in range(10_000):
            yield f',"k{number}":"{"x" * 100}"\n'.encode()
        yield from (b"}\n", b'{"n":1}\n')

    tracemalloc.start()
    found = [value for *_, value in read_texts(lines(), Options(None, LIMIT), BATCHES)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [isinstance(value, InvalidEvent) for value in found] == [True, False]
    assert peak < 600_000  # the text has 1,100,000 bytes


def test_a_large_object_without_records_is_one_error() -> None:
    """In an array, the elements behind it are read, and its line is not refused again."""
    large = json.dumps({"x": "y" * LIMIT})
    assert values(f'[{large},5,{{"n":1}}]\n{{"n":1}}\n') == ["error", "error", ONE, ONE]
