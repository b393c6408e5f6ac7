"""Text logs: headers of transports, regular expressions, and pairs."""

import random
import time

import pytest

from app.intake.formats.text import compile_pairs, compile_text, compile_texts, without_log_header

JSON = b'{"a": 1}\n'


@pytest.mark.parametrize(
    "header",
    [
        b"<15>1 2024-10-30T17:27:03.414+05:30 keycloak keycloak 81812 org.keycloak.events - ",
        b'<15>1 2024-10-30T17:27:03Z host app - ID47 [example@1 iut="3"][x@2 y="z"] \xef\xbb\xbf',
        b"<34>Oct 11 22:14:15 host app: ",
        b"Nov 28 09:06:00 host app[4711]: ",
        b"Nov  8 09:06:00 host app: ",
        b"2026-05-01T00:00:00.123456789Z stdout F ",
        b"idp-1  | ",
    ],
)
def test_a_header_of_a_transport_is_skipped(header: bytes) -> None:
    """syslog, journald, containerd and Docker Compose write before a line."""
    assert without_log_header(header + JSON) == JSON


@pytest.mark.parametrize(
    "text",
    [
        b"GET /token body=" + JSON,
        b"Nov 28 09:06:00 host app[4711]: GET /token body=" + JSON,
        b"2026-05-01T00:00:00Z INFO user " + JSON,
        b"{} " + JSON,
    ],
)
def test_a_programs_own_words_are_not_skipped(text: bytes) -> None:
    """Callers of a program may choose its words, and so forge a record."""
    assert not without_log_header(text).startswith(b'{"a"')


def test_the_first_expression_that_matches_all_decides() -> None:
    read = compile_texts([r"a=(?P<a>\d+)", r"a=(?P<other>.+)"])
    assert read("a=1") == {"a": "1"}
    assert read("a=1x") == {"other": "1x"}
    assert read("xa=1") is None


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(?P<a>", "not a regular expression"),
        ("(?P<a>[[a])", "not a regular expression"),
        ("(?P<a>x){99999999999}", "not a regular expression"),
        ("(?P<a>x)(?P<a>y)", "not a regular expression"),
        ("abc", "no group"),
        ("(?P<a>x)(y)", "without a name"),
        ("".join(f"(?P<g{number}>x)" for number in range(33)), "33 groups"),
        ("(?P<a>(?:x+)+)y", "take for ever"),
        ("(?P<a>(?:x*,?)*)y", "take for ever"),
        (r"(?P<a>(?:\w+\s?)*)$", "take for ever"),
        ("(?P<a>(?:(?:x|y*)z?){2,})", "take for ever"),
        ("(?P<a>x+)*", "take for ever"),
        (r"(?P<a>(?:\w\w?)*)!", "take for ever"),
        (r"(?P<a>(?:\w\w??)+)!", "take for ever"),
        (r"(?P<a>(?:\w\w{0,1})*)!", "take for ever"),
        (r"(?P<a>(?:\w(?:\w)?)*)!", "take for ever"),
    ],
)
def test_a_wrong_expression_is_an_error(pattern: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        compile_text(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        r"(?P<a>(?:\w++\s?+)*)",
        r"(?P<a>(?:a+)?b??)(?:c?)?",
        r"(?P<a>(?>\w+)*+)",
        r"(?P<a>[(*+]+)(?:\(x+\))?",
        r"(?P<a>\d{4}(?:-\d\d){2})(?P<rest>.*)",
        r"(?P<a>(?:abc)+)",
    ],
)
def test_a_harmless_expression_is_allowed(pattern: str) -> None:
    compile_text(pattern)


PAIRS = [
    ('a="1", b="2"', {"a": "1", "b": "2"}),
    ('a="x y", b="1,2", c=""', {"a": "x y", "b": "1,2", "c": ""}),
    (r'a="x\"y", b="c:\\"', {"a": 'x"y', "b": "c:\\"}),
    ("a=1, b='x y', c=z", {"a": "1", "b": "x y", "c": "z"}),
    ("a=x y z, b=it's", {"a": "x y z", "b": "it's"}),
    ("a=1 b=2;c=3", {"a": "1", "b": "2", "c": "3"}),
    ('a="1" a="2", a=3', {"a": "1"}),
    ("u=https://x/?a=1&b=2, c=3", {"u": "https://x/?a=1&b=2", "c": "3"}),
    ("words before a=1", {"a": "1"}),
    ("no pairs at all", {}),
    ("=x, =y, a =b", {}),
    ("", {}),
    ('a="unclosed, b=2', {"a": '"unclosed', "b": "2"}),
    ("a=, b=2", {"a": "", "b": "2"}),
    ("x.y-z=1", {"x.y-z": "1"}),
]


@pytest.mark.parametrize(("text", "pairs"), PAIRS)
def test_the_first_of_a_name_counts(text: str, pairs: dict[str, str]) -> None:
    assert compile_pairs([])(text) == pairs


@pytest.mark.parametrize("seed", range(300))
def test_simple_texts_are_read_as_all_others(seed: int) -> None:
    """The short way for texts with quotation marks finds what the expression finds."""
    dice = random.Random(seed)
    pieces = ['a="', 'b="', '", ', '"', "x", "=", ",", " ", "a", "b=", "'", '="', ";", "ü", "1"]
    text = "".join(dice.choice(pieces) for _ in range(dice.randrange(1, 14)))
    text = dice.choice([text, f'a="1", {text}"', f'a="{text}", b="2"'])
    read = compile_pairs([])
    # Behind another separator, the expression reads the same pairs and one more.
    assert read(text) | {"z": "1"} == read(f"{text};z=1") | {"z": "1"}


def test_leading_names_count_in_their_order_only() -> None:
    """A name that the log writes before a caller's value is ignored behind it."""
    read = compile_pairs(["type", "realm", "realmName", "client"])
    assert read("type=a, realm=b, client=c, x=1")["client"] == "c"
    assert read("type=a, client=c, realmName=forged, realm=forged") == {"type": "a", "client": "c"}
    assert read("x=1, type=forged") == {"x": "1"}


@pytest.mark.parametrize(
    "text",
    [
        "a=" * 30000,
        "a= " * 20000,
        ", " * 30000,
        'a="' * 20000,
        "a='x " * 15000,
        "a" * 60000,
        "a=b;" + " ;" * 30000 + "=",
        "a=b " + "c " * 30000,
        "\\" * 60000,
    ],
    ids=range(9),
)
def test_pairs_take_linear_time(text: str) -> None:
    """A line at the limit takes milliseconds, whatever is in it."""
    read = compile_pairs(["type"])
    began = time.process_time()
    read(text)
    assert time.process_time() - began < 1
