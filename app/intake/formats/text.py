"""Text logs: lines that match regular expressions, and pairs of names and values within a text."""

import re
import warnings
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

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

    def read(text: str) -> dict[str, str]:
        found = _quoted_pairs(text)
        if found is None:
            found = [(name, a or b or c) for name, a, b, c in _PAIR.findall(text)]
        pairs = dict(reversed(found))
        for name in _forged(found, order):
            pairs.pop(name, None)
        if "\\" in text:
            pairs = {name: _unescaped(value, text) for name, value in pairs.items()}
        return pairs

    return read


def _forged(found: Sequence[tuple[str, str]], order: Mapping[str, int]) -> Set[str]:
    """The leading names that do not stand where the log writes them."""
    genuine: set[str] = set()
    place = -1
    for name, _ in found:
        number = order.get(name)
        if number is None:
            break
        if number > place:
            genuine.add(name)
            place = number
    return order.keys() - genuine


def _quoted_pairs(text: str) -> list[tuple[str, str]] | None:
    """The pairs of a text in which each value has quotation marks; ``None`` if it is not so simple.

    It finds the same pairs as the expression, in a third of the time.
    """
    if text[-1:] != '"' or "\\" in text:
        return None
    found = []
    for part in text[:-1].split('", '):
        name, sign, value = part.partition('="')
        if not sign or '"' in value or not (name.isidentifier() and name.isascii()):
            return None
        found.append((name, value))
    return found


def _unescaped(value: str, text: str) -> str:
    """A value without the backslashes before quotation marks, if it was written in these."""
    return _ESCAPED.sub(r"\1", value) if f'"{value}"' in text else value
