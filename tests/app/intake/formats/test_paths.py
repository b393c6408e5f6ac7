"""Paths: what is one, and which value it finds."""

from typing import Any

import pytest

from app.intake.formats.paths import getter, values_getter

RECORD = {
    "a": {"b": {"c": 1}, "b.c": 2, "": 3},
    "a.b": 4,
    "list": [{"k": "x", "v": 5}, {"k": "y", "v": 6}, "text"],
    "text": "abc",
    "null": None,
    "@timestamp": 7,
    "key with space": 8,
    'quo"te': 9,
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("a.b.c", 1),
        ('a."b.c"', 2),
        ('"a.b"', 4),
        ("list[0].v", 5),
        ("list[k=y].v", 6),
        ("list[k=z].v", None),
        ("list[2]", "text"),
        ("list[3]", None),
        ("list[0][1]", None),
        ("list.k", None),
        ("text[0]", None),
        ("text.length", None),
        ("null.x", None),
        ("nowhere.x.y.z", None),
        ("@timestamp", 7),
        ('"key with space"', 8),
        (r'"quo\"te"', 9),
        ("a", RECORD["a"]),
    ],
)
def test_a_path_finds_its_value_or_none(path: str, value: Any) -> None:
    """A value of another type on the way is no value, and never an error."""
    assert getter(path)(RECORD) == value


@pytest.mark.parametrize("value", [None, 1, True, 1.5, "text", [], [[]], {}])
def test_a_path_takes_any_value(value: Any) -> None:
    for path in ("a", "a.b", "a.b.c", "a[0]", "a[k=v].b", "a[0].b"):
        assert getter(path)({"a": value}) in (None, value, [])
        getter(path)(value)


def test_brackets_mean_every_element() -> None:
    get, many = values_getter("list[].k")
    assert many
    assert get(RECORD) == ["x", "y", None]
    assert values_getter("text[]")[0](RECORD) is None
    assert values_getter("a.b.c")[1] is False


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "a[",
        "a[x]",
        "a[-1]",
        "a[0",
        "[0]",
        "[]",
        "a.[0]",
        'a"b"',
        '"a',
        "a b",
        "a[0]b",
        'a.""',
        "a[k=]",
        "a[=v]",
        "a]",
        "a[1.5]",
        "a\n",
    ],
)
def test_a_wrong_path_is_an_error(path: str) -> None:
    """The error quotes the path, so that its line can be found."""
    with pytest.raises(ValueError, match="is not a path") as error:
        getter(path)
    assert repr(path) in str(error.value)


def test_brackets_are_for_conditions() -> None:
    with pytest.raises(ValueError, match="name one element"):
        getter("a[].b")
    with pytest.raises(ValueError, match="more than once"):
        values_getter("a[].b[]")
