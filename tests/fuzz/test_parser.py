"""Any bytes at all: only the declared errors, and accepted values keep their meaning."""

import io
import json
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.dates import EPOCH, parse_instant
from app.errors import ForbiddenError, ServiceError
from app.intake.events import FUTURE, InvalidEvent, make_event, parse_batch, parse_event
from app.intake.files import bounded_lines
from app.intake.formats.base import Header, Options
from app.intake.formats.csv_rows import read_csv
from app.web.api.bodies import split_json
from tests.fuzz.conftest import fuzzing
from tests.fuzz.test_api import BODIES, EVENTS_OR_SO, JSON_VALUES, TEXTS
from tests.support.settings import EVENT_BYTES, NOW

# Functions are fuzzed in seconds.
pytestmark = pytest.mark.quick

GOOD = {"id": "good", "agentId": "a", "issuedAt": "2026-04-01T09:00:00Z"}
TEXT_OF_GOOD = json.dumps(GOOD).encode()
MOMENTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30))  # noqa: DTZ001 - the text has the offset


def check_accepted(event):
    for text in event[:3]:
        assert 1 <= len(text) <= 255
        assert not any(ord(c) < 0x20 or 0x7F <= ord(c) <= 0x9F for c in text)
    assert event.issued_at.utcoffset() == timedelta(0)
    assert EPOCH <= event.issued_at <= NOW + FUTURE


@fuzzing
@given(TEXTS, st.sampled_from([None, "org-a"]))
def test_any_text_is_an_event_or_a_declared_error(text, tenant):
    try:
        event = parse_event(text, tenant, NOW, EVENT_BYTES)
    except (InvalidEvent, ForbiddenError):
        return
    check_accepted(event)


@fuzzing
@given(EVENTS_OR_SO)
def test_an_accepted_event_says_what_was_sent(members):
    text = json.dumps(members).encode()
    try:
        event = parse_event(text, None, NOW, EVENT_BYTES)
    except InvalidEvent:
        return
    check_accepted(event)
    names = ("organizationId", "id", "agentId")
    assert event[:3] == tuple(members[name] for name in names)


@fuzzing
@given(st.lists(TEXTS, max_size=4), st.lists(TEXTS, max_size=4))
def test_a_good_event_is_found_whatever_stands_beside_it(before, after):
    try:
        batch = parse_batch([*before, TEXT_OF_GOOD, *after], "org-a", NOW, EVENT_BYTES)
    except ForbiddenError:
        return
    assert batch.received == len(before) + 1 + len(after)
    assert "good" in [event.event_id for event in batch.events]
    assert len(before) not in [error.index for error in batch.errors]


@fuzzing
@given(st.lists(JSON_VALUES, max_size=6), st.sampled_from([None, 2, "\t"]))
def test_an_array_is_taken_apart_as_json_is_read(values, indent):
    text = json.dumps(values, indent=indent)
    items = split_json(text.encode(), 10)
    # By their text: not-a-number equals nothing, itself included.
    again = [json.dumps(json.loads(item)) for item in items]
    assert again == [json.dumps(value) for value in json.loads(text)]


@fuzzing
@given(BODIES)
def test_any_body_is_taken_apart_or_a_declared_error(body):
    try:
        items = split_json(b"[" + body + b"]", 10)
    except ServiceError:
        return
    assert len(items) <= 11


HEADER = b"id,agentId,issuedAt,note\n"
CSV_PIECES = st.one_of(
    st.sampled_from(["a", "e1", "2026-04-01T09:00:00Z", ",", ";", "\t", " ", "\r", "\x00", "\xe9"]),
    st.sampled_from(['"', '""', '"x"', '",', ',"', "\n", "e1,a1,2026-04-01T09:00:00Z,x\n"]),
    st.sampled_from(["\n", 'e1,a1,2026-04-01T09:00:00Z,"x\ny"\n', 'y"\n']),
)


def read_rows(lines):
    """The numbers of the lines that are events, and of those that are refused."""
    events, refused = set(), set()
    for number, members, _ in read_csv(iter([HEADER, *lines]), Options("org-a", 200)):
        if isinstance(members, Header):
            continue
        try:
            if isinstance(members, InvalidEvent):
                raise members
            make_event(members, "org-a", NOW)
            events.add(number)
        except InvalidEvent:
            refused.add(number)
    assert not events & refused
    return events, refused


@fuzzing
@given(st.lists(CSV_PIECES, max_size=60).map("".join))
def test_each_line_of_a_csv_is_an_event_or_named(text):
    """A line that is an event by itself is one; any other is blank, named, or of a quoted cell."""
    lines = list(bounded_lines(io.BytesIO(text.encode()), 200))
    events, refused = read_rows(lines)
    record = HEADER
    for number, line in enumerate(lines, start=2):
        if number in events | refused:
            record = line
        else:
            assert not line.strip() or b'"' in record
        assert number in events or read_rows([line])[0] == set()


@fuzzing
@given(MOMENTS, st.text("0123456789", max_size=12), st.integers(-1439, 1439))
def test_an_instant_is_cut_to_the_microsecond_never_rounded(moment, digits, minutes):
    fraction = f".{digits}" if digits else ""
    hours, rest = divmod(abs(minutes), 60)
    offset = f"{'-' if minutes < 0 else '+'}{hours:02}:{rest:02}"
    text = f"{moment:%H:%M:%S}{fraction}{offset}"
    instant = parse_instant(f"{moment.date().isoformat()}T{text}")
    whole = moment.replace(microsecond=0, tzinfo=UTC) - timedelta(minutes=minutes)
    exact = Fraction(int(digits or "0"), 10 ** len(digits)) * 1_000_000
    assert instant - whole == timedelta(microseconds=exact.numerator // exact.denominator)


@fuzzing
@given(st.text() | st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z"))
def test_any_text_is_an_instant_or_a_value_error(text):
    """Any text is either an instant that Python parses alike, or a ValueError."""
    try:
        instant = parse_instant(text)
    except ValueError:
        return
    assert instant == datetime.fromisoformat(text.upper())
