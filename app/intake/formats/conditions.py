"""Conditions: whether a record has certain values.

A table of paths and tests holds if every test holds; a list of tables holds if one table does.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import msgspec

from app.intake.formats.paths import Get, Member, parse_path, values_getter

Scalar = str | int | float | bool
Holds = Callable[[Any], bool]


class ValueTest(msgspec.Struct, forbid_unknown_fields=True, rename={"not_": "not"}):
    """A test of the value at a path. If it has several members, all of them must hold."""

    present: Annotated[
        bool | msgspec.UnsetType,
        msgspec.Meta(description="whether there is a value; null and empty text are none"),
    ] = msgspec.UNSET
    prefix: Annotated[
        str | list[str] | msgspec.UnsetType,
        msgspec.Meta(description="the beginning of a text, or one of several"),
    ] = msgspec.UNSET
    suffix: Annotated[
        str | list[str] | msgspec.UnsetType,
        msgspec.Meta(description="the end of a text, or one of several"),
    ] = msgspec.UNSET
    not_: Annotated[
        "Scalar | list[Scalar] | ValueTest | msgspec.UnsetType",
        msgspec.Meta(description="a value, values or a test that must not hold"),
    ] = msgspec.UNSET


Expected = Scalar | list[Scalar] | ValueTest
All = Annotated[
    dict[str, Expected],
    msgspec.Meta(min_length=1, description="paths, each with its value, values or test"),
]
Condition = All | Annotated[list[All], msgspec.Meta(min_length=1)]


def compile_condition(condition: Condition) -> Holds:
    """A function that says whether a record meets the condition.

    Raises:
        ValueError: a path or a test is invalid.
    """
    if isinstance(condition, dict):
        return _all([_at(path, expected) for path, expected in condition.items()])
    return _any([compile_condition(one) for one in condition])


def _at(path: str, expected: Expected) -> Holds:
    get, many = values_getter(path)
    if many:
        return _every(get, expected)
    holds = _holds(expected)
    match parse_path(path):
        case (Member(name),):
            return lambda record: holds(record.get(name))
        case (Member(name), Member(last)):
            return _within(name, last, holds)
    return lambda record: holds(get(record))


def _within(name: str, last: str, holds: Holds) -> Holds:
    def within(record: Any) -> bool:
        inner = record.get(name)
        return holds(inner.get(last) if type(inner) is dict else None)

    return within


def _every(get: Get, expected: Expected) -> Holds:
    """A test of every element: one must hold. ``not`` is about all of them."""
    if isinstance(expected, ValueTest) and not isinstance(expected.not_, msgspec.UnsetType):
        denied = _every(get, expected.not_)
        rest = ValueTest(present=expected.present, prefix=expected.prefix, suffix=expected.suffix)
        if rest == ValueTest():
            return lambda record: not denied(record)
        others = _every(get, rest)
        return lambda record: not denied(record) and others(record)
    holds = _holds(expected)
    absent = holds(None)  # such as present = false

    def every(record: Any) -> bool:
        values = get(record)
        return any(map(holds, values)) if values else absent

    return every


def _holds(expected: Expected) -> Holds:
    if isinstance(expected, ValueTest):
        return _all(_tests(expected))
    return _one_of(expected if isinstance(expected, list) else [expected])


def _tests(test: ValueTest) -> list[Holds]:
    holds: list[Holds] = []
    if not isinstance(test.present, msgspec.UnsetType):
        holds.append(has_value if test.present else lambda value: not has_value(value))
    if not isinstance(test.prefix, msgspec.UnsetType):
        starts = _texts(test.prefix)
        holds.append(lambda value: type(value) is str and value.startswith(starts))
    if not isinstance(test.suffix, msgspec.UnsetType):
        ends = _texts(test.suffix)
        holds.append(lambda value: type(value) is str and value.endswith(ends))
    if not isinstance(test.not_, msgspec.UnsetType):
        denied = _holds(test.not_)
        holds.append(lambda value: not denied(value))
    if not holds:
        raise ValueError("a test needs one of present, prefix, suffix, not")
    return holds


def _texts(given: str | list[str]) -> tuple[str, ...]:
    texts = (given,) if isinstance(given, str) else tuple(given)
    if not texts or "" in texts:
        raise ValueError("a prefix or suffix needs text")
    return texts


def _one_of(expected: Sequence[Scalar]) -> Holds:
    """Whether a value is one of several. JSON has one kind of number; true is not 1."""
    if not expected:
        raise ValueError("a list of values needs a value")
    texts = frozenset(one for one in expected if isinstance(one, str))
    others = [(type(one) is bool, one) for one in expected if not isinstance(one, str)]
    if not others:
        return lambda value: type(value) is str and value in texts

    def holds(value: Any) -> bool:
        if type(value) is str:
            return value in texts
        return any(value == one and (type(value) is bool) is is_bool for is_bool, one in others)

    return holds


def has_value(value: Any) -> bool:
    """Whether a value is there: not null, not empty, and not the word null that logs write."""
    if type(value) is str:
        return value not in ("", "null")
    return value is not None


def _all(tests: Sequence[Holds]) -> Holds:
    if len(tests) == 1:
        return tests[0]
    if len(tests) == 2:
        first, second = tests
        return lambda record: first(record) and second(record)

    def every(record: Any) -> bool:
        for holds in tests:  # noqa: SIM110 - a generator takes twice as long
            if not holds(record):
                return False
        return True

    return every


def _any(tests: Sequence[Holds]) -> Holds:
    if len(tests) == 1:
        return tests[0]
    if len(tests) == 2:
        first, second = tests
        return lambda record: first(record) or second(record)

    def one(record: Any) -> bool:
        for holds in tests:  # noqa: SIM110 - a generator takes twice as long
            if holds(record):
                return True
        return False

    return one
