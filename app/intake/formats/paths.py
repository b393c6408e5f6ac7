"""Paths: where a record has a value, as ``properties.status.errorCode``.

A path is compiled once to a function from a record to the value, or ``None`` if there is none.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

Get = Callable[[Any], Any]

# A member by its name, an element by its number, the element that has a member with a value, or
# every element.
_STEP = re.compile(
    r'"(?P<quoted>(?:[^"\\]|\\["\\])+)"'
    r"|\[(?P<index>\d{1,6})\]"
    r"|\[(?P<member>[\w$@-]+)=(?P<value>[^\[\]]+)\]"
    r"|(?P<every>\[\])"
    r'|(?P<name>[^."\[\]\s]+)'
)


class Member(NamedTuple):
    """The member of an object."""

    name: str


class Index(NamedTuple):
    """The element of an array, by its number."""

    number: int


class Having(NamedTuple):
    """The first element of an array that has a member with this text."""

    member: str
    value: str


class Every(NamedTuple):
    """Every element of an array."""


Step = Member | Index | Having | Every


def parse_path(text: str) -> tuple[Step, ...]:
    """The steps of a path.

    Raises:
        ValueError: the text is not a path.
    """
    steps: list[Step] = []
    position = 0
    while position < len(text) or not steps:
        if steps and text[position] == ".":
            position += 1
            if text[position : position + 1] == "[":
                raise _not_a_path(text)
        elif steps and text[position] != "[":
            raise _not_a_path(text)
        match = _STEP.match(text, position)
        if match is None or (not steps and text.startswith("[")):
            raise _not_a_path(text)
        steps.append(_step(match))
        position = match.end()
    return tuple(steps)


def _not_a_path(text: str) -> ValueError:
    return ValueError(
        f"{text!r} is not a path; write names with dots between them, as a.b, and put a name that"
        ' has a dot or a space itself into quotation marks, as a."b.c"; an element of an array is'
        " a[0] or a[name=value], and a[] is every element"
    )


def _step(match: re.Match[str]) -> Step:
    if match["quoted"] is not None:
        return Member(re.sub(r"\\(.)", r"\1", match["quoted"]))
    if match["index"] is not None:
        return Index(int(match["index"]))
    if match["member"] is not None:
        return Having(match["member"], match["value"])
    return Every() if match["every"] else Member(match["name"])


def getter(text: str) -> Get:
    """A function that returns the value at a path, which must not have ``[]``.

    Raises:
        ValueError: the text is not such a path.
    """
    steps = parse_path(text)
    if any(isinstance(step, Every) for step in steps):
        raise ValueError(f"{text!r} has [], which is for conditions; name one element, as [0]")
    return _getter(steps)


def values_getter(text: str) -> tuple[Get, bool]:
    """A function for a path, and whether it returns a list of values, since the path has ``[]``."""
    steps = parse_path(text)
    every = [number for number, step in enumerate(steps) if isinstance(step, Every)]
    if not every:
        return _getter(steps), False
    if len(every) > 1:
        raise ValueError(f"{text!r} has [] more than once")
    array, inner = _getter(steps[: every[0]]), _getter(steps[every[0] + 1 :])

    def values(record: Any) -> Any:
        found = array(record)
        return [inner(one) for one in found] if type(found) is list else None

    return values, True


def _getter(steps: Sequence[Step]) -> Get:
    names = [step.name for step in steps if isinstance(step, Member)]
    if len(names) < len(steps):
        return _mixed([_one(step) for step in steps])
    if not names:
        return lambda record: record
    if len(names) == 1:
        return _member(names[0])
    return _members(names[:-1], names[-1])


def _member(name: str) -> Get:
    return lambda record: record.get(name) if type(record) is dict else None


def _members(names: Sequence[str], last: str) -> Get:
    if len(names) == 1:
        first = names[0]

        def two(record: Any) -> Any:
            inner = record.get(first) if type(record) is dict else None
            return inner.get(last) if type(inner) is dict else None

        return two

    def many(record: Any) -> Any:
        for name in names:
            if type(record) is not dict:
                return None
            record = record.get(name)
        return record.get(last) if type(record) is dict else None

    return many


def _mixed(gets: Sequence[Get]) -> Get:
    def get(record: Any) -> Any:
        for one in gets:
            record = one(record)
            if record is None:
                return None
        return record

    return get


def _having(name: str, text: str) -> Get:
    def get(value: Any) -> Any:
        if type(value) is list:
            for one in value:
                if type(one) is dict and one.get(name) == text:
                    return one
        return None

    return get


def _one(step: Step) -> Get:
    if isinstance(step, Member):
        return _member(step.name)
    if isinstance(step, Index):
        number = step.number
        return lambda value: value[number] if type(value) is list and number < len(value) else None
    if isinstance(step, Having):
        return _having(step.member, step.value)
    raise ValueError("[] has no single value")
