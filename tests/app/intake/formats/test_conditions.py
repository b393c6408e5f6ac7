"""Conditions: equal, one of, present, prefix, suffix, not; tables AND, lists OR."""

from typing import Any

import msgspec
import pytest

from app.intake.formats.conditions import Condition, compile_condition


def holds(condition: Any, record: Any) -> bool:
    return compile_condition(msgspec.convert(condition, Condition))(record)


@pytest.mark.parametrize(
    ("expected", "equal", "unequal"),
    [
        (200, [200, 200.0], ["200", True, None, 201, [200], {}]),
        (200.0, [200, 200.0], ["200", 200.5]),
        (1, [1, 1.0], [True, "1"]),
        (0, [0, 0.0, -0.0], [False, "0", "", None]),
        (True, [True], [1, "true", False, None, "True"]),
        (False, [False], [0, None, "", "false"]),
        ("0", ["0"], [0, 0.0, False, "00", "0 "]),
        ("a", ["a"], ["A", " a", "a\n", ["a"], {"a": 1}]),
        (["a", 1], ["a", 1, 1.0], ["1", True, None]),
        ({"present": True}, [0, False, "x", [], {}], [None, "", "null"]),
        ({"present": False}, [None, "", "null"], [0, False, "x"]),
        ({"prefix": "ab"}, ["ab", "abc"], ["a", "AB", "", None, 1, ["ab"]]),
        ({"suffix": ["x", "y"]}, ["ax", "y"], ["xa", None]),
        ({"prefix": "a", "suffix": "c"}, ["abc", "ac"], ["ab", "bc"]),
        ({"not": 0}, [1, "0", None, False], [0, 0.0]),
        ({"not": ["a", "b"]}, ["c", None, ["a"]], ["a", "b"]),
        ({"not": {"prefix": "a"}}, ["b", None], ["a", "ab"]),
        ({"prefix": "a", "not": "ab"}, ["a", "abc"], ["ab", "b"]),
    ],
)
def test_a_value_meets_a_test_or_not(expected: Any, equal: list[Any], unequal: list[Any]) -> None:
    """Numbers are equal by value. Text, true and false equal only themselves."""
    assert [holds({"v": expected}, {"v": value}) for value in equal] == [True] * len(equal)
    assert [holds({"v": expected}, {"v": value}) for value in unequal] == [False] * len(unequal)


def test_tables_are_and_and_lists_are_or() -> None:
    both, either = {"a": 1, "b": 2}, [{"a": 1}, {"b": 2}, {"c": 3}]
    assert holds(both, {"a": 1, "b": 2})
    assert not holds(both, {"a": 1})
    assert holds(either, {"b": 2})
    assert holds(either, {"c": 3})
    assert not holds(either, {"d": 4})


def test_brackets_ask_for_any_element() -> None:
    """One element must pass. With not, none may be equal."""
    record = {"t": [{"k": "code"}, {"k": "access_token"}, 5]}
    assert holds({"t[].k": "access_token"}, record)
    assert not holds({"t[].k": "id_token"}, record)
    assert not holds({"t[].k": {"not": "code"}}, record)
    assert holds({"t[].k": {"not": "id_token"}}, record)
    assert holds({"t[].k": {"not": "x", "prefix": "acc"}}, record)
    for nothing in ({}, {"t": None}, {"t": []}, {"t": "text"}):
        assert not holds({"t[].k": "code"}, nothing)
        assert holds({"t[].k": {"not": "code"}}, nothing)
        assert holds({"t[].k": {"present": False}}, nothing)


@pytest.mark.parametrize(
    "condition",
    [{"v": []}, {"v": {}}, {"v": {"prefix": ""}}, {"v": {"suffix": []}}, {"v": {"not": []}}],
)
def test_a_test_needs_something(condition: Any) -> None:
    with pytest.raises(ValueError, match="needs"):
        holds(condition, {})
