"""Text logs: lines that match regular expressions, and pairs of names and values within a text."""

import re
import warnings
from collections.abc import Callable, Mapping, Sequence, Set
from functools import lru_cache
from typing import Any, NamedTuple

MAX_GROUPS = 32

ReadText = Callable[[str], dict[str, Any] | None]
ReadPairs = Callable[[str], dict[str, str]]

# What syslog (RFC 5424 and RFC 3164), journald, containerd and Docker Compose write before a line.
# A program's own words are not skipped, because callers of the program may choose them.
_LOG_HEADER = re.compile(
    rb"<\d{1,3}>1 (?:[^\s{]+ ){5}(?:-|(?:\[[^\]]*+\])++) ?(?:\xef\xbb\xbf)? *"
    rb"|(?:<\d{1,3}>)?[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d [^\s{]+ [^\s{:]+(?:\[\d+\])?: *"
    rb"|\d{4}-\d\d-\d\dT[^\s{]{8,35} (?:stdout|stderr) [FP] "
    rb"|[\w.-]+ +\| "
)

_NAME = r"[A-Za-z_][\w.-]*+"
# A pair and the separators behind it, so that the next one is found at once.
_PAIR = re.compile(
    rf"(?<![^\s,;])({_NAME})="
    r'(?:"([^"\\]*+(?:\\.[^"\\]*+)*+)"|'
    r"'([^']*+)'(?=[\s,;]|$)|"
    rf"([^\s,;]*+(?:[\s,;]++(?!{_NAME}=)[^\s,;]++)*+))[\s,;]*+",
    re.ASCII | re.DOTALL,
)
# What is before a value in a text in which each value has quotation marks, behind ", ".
_WRITTEN_NAME = re.compile(rf", ({_NAME})=", re.ASCII)
_ESCAPED = re.compile(r'\\(["\\])')


def without_log_header(line: bytes) -> bytes:
    """A line without what a log's transport has written before it."""
    match = _LOG_HEADER.match(line)
    return line[match.end() :] if match else line


def compile_texts(patterns: Sequence[str]) -> ReadText:
    """A function from a line to the named groups of the first expression that matches all of it.

    Raises:
        ValueError: an expression is invalid.
    """
    matches = [compile_text(pattern).fullmatch for pattern in patterns]

    def read(line: str) -> dict[str, Any] | None:
        for fullmatch in matches:
            if match := fullmatch(line):
                return match.groupdict()
        return None

    return read


def compile_text(pattern: str) -> re.Pattern[str]:
    """A regular expression with named groups, which cannot take exponential time.

    Raises:
        ValueError: the expression is invalid; the message says why.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError, Warning) as error:
        raise ValueError(f"is not a regular expression: {error}") from None
    if compiled.groups > MAX_GROUPS:
        raise ValueError(f"has {compiled.groups} groups; at most {MAX_GROUPS} are possible")
    if compiled.groups > len(compiled.groupindex):
        raise ValueError("has a group without a name; write (?P<name>…), or (?:…) without one")
    if not compiled.groups:
        raise ValueError("has no group; write (?P<name>…) for each part that is read")
    if _repeats_a_repetition(pattern):
        raise ValueError(
            "repeats a group that has a repetition or an optional part itself, which can take for"
            " ever; make the inner one possessive, as in (?:[a-z]++,?+)*"
        )
    return compiled


_TOKEN = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|(?P<open>\((?:\?(?:P?[<=!][^)>]*>?|[:>=!]|<[=!]|[a-z-]+[:)]))?)"
    r"|(?P<close>\))|(?P<repeat>(?:[*+]|\{\d*,\d*\})[?+]?)|(?P<option>\?[?+]?)|.",
    re.DOTALL,
)


def _repeats_a_repetition(pattern: str) -> bool:
    """Whether a group whose text may have several lengths is itself repeated without a bound.

    Such an expression can try every way to divide a text among the two.
    """
    groups, closed = [False], False
    for token in _TOKEN.finditer(pattern):
        if token["open"]:
            groups.append(False)
        elif token["close"] and len(groups) > 1:
            closed = groups.pop()
            groups[-1] = groups[-1] or closed
            continue
        elif token["repeat"] and not token[0].endswith("+" if len(token[0]) > 1 else "\0"):
            if closed:
                return True
            groups[-1] = True
        elif token["option"] and token[0] != "?+":
            groups[-1] = True
        closed = False
    return False


def compile_pairs(first: Sequence[str]) -> ReadPairs:
    """A function from a text to its pairs; the first of a name counts.

    Later ones can be forged: without quotation marks, a value may contain ``, name=value``.

    Args:
        first: the names that the log writes first, in this order, before any value that a caller
            chooses. Elsewhere they are ignored.
    """
    order = {name: number for number, name in enumerate(first)}

    @lru_cache(maxsize=64)
    def known(written: tuple[str, ...]) -> _Names | None:
        # A log writes few sequences of names. To find what they mean takes most of the time.
        names = [match[1] for one in written if (match := _WRITTEN_NAME.fullmatch(one))]
        return _Names(names[::-1], _forged(names, order)) if len(names) == len(written) else None

    def read(text: str) -> dict[str, str]:
        if "\\" not in text:
            # If each value has quotation marks, it is between two parts that are names.
            parts = f", {text}".split('"')
            if not parts[-1] and len(parts) % 2 and (names := known(tuple(parts[:-1:2]))):
                return names.with_values(parts[-2::-2])
        found = _PAIR.findall(text)
        written = [name for name, *_ in found]
        names = _Names(written[::-1], _forged(written, order))
        pairs = names.with_values([a or b or c for _, a, b, c in reversed(found)])
        if "\\" in text:
            pairs = {name: _unescaped(value, text) for name, value in pairs.items()}
        return pairs

    return read


class _Names(NamedTuple):
    """The names of a text's pairs, from its end, and those that do not count."""

    names: Sequence[str]
    forged: Set[str]

    def with_values(self, values: Sequence[str]) -> dict[str, str]:
        """Each name with its first value, which is the last from the end."""
        pairs = dict(zip(self.names, values, strict=True))
        for name in self.forged:
            pairs.pop(name, None)
        return pairs


def _forged(names: Sequence[str], order: Mapping[str, int]) -> Set[str]:
    """The leading names that do not stand where the log writes them."""
    genuine: set[str] = set()
    place = -1
    for name in names:
        number = order.get(name)
        if number is None:
            break
        if number > place:
            genuine.add(name)
            place = number
    return order.keys() - genuine


def _unescaped(value: str, text: str) -> str:
    """A value without the backslashes before quotation marks, if it was written in these."""
    return _ESCAPED.sub(r"\1", value) if f'"{value}"' in text else value
