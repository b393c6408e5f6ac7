"""Times: dates with and without offsets, fractions, zones, and numbers since 1970."""

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from app.intake.formats.times import instant_of_number, instant_of_text

BERLIN = ZoneInfo("Europe/Berlin")


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type, misc]  # as many as a date needs


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-04-01T09:00:00Z", utc(2026, 4, 1, 9)),
        ("2026-04-01T09:00:00z", utc(2026, 4, 1, 9)),
        ("2026-04-01t09:00:00.5Z", utc(2026, 4, 1, 9, 0, 0, 500_000)),
        ("2026-04-01 09:00:00,226Z", utc(2026, 4, 1, 9, 0, 0, 226_000)),
        ("2026-04-01T23:59:59.9999999+00:00", utc(2026, 4, 1, 23, 59, 59, 999_999)),
        ("2026-04-01T23:59:59.999999999Z", utc(2026, 4, 1, 23, 59, 59, 999_999)),
        ("2026-04-01T23:59:59." + "9" * 40 + "Z", utc(2026, 4, 1, 23, 59, 59, 999_999)),
        ("2026-04-01T05:29:59.9+05:30", utc(2026, 3, 31, 23, 59, 59, 900_000)),
        ("2026-04-01T05:30:00+0530", utc(2026, 4, 1)),
        ("2026-04-01 05:30:00 +05:30", utc(2026, 4, 1)),
        ("2026-04-01T00:00:00-00:30", utc(2026, 4, 1, 0, 30)),
    ],
)
def test_a_date_with_an_offset_is_an_instant(text: str, expected: datetime) -> None:
    """Fractions are cut, never rounded: a rounded one could fall on the next day."""
    assert instant_of_text(text, None) == expected
    assert instant_of_text(text, BERLIN) == expected


@pytest.mark.parametrize(
    "value",
    [
        None,
        1711962000,
        1.5,
        True,
        [],
        "",
        "yesterday",
        "2026-05-02",
        "09:00:00",
        "20260401T090000Z",
        "2026-05-02T09:00Z",
        "2026-05-02T24:00:00Z",
        "2026-02-29T09:00:00Z",
        "2026-05-02T09:60:00Z",
        "2026-12-31T23:59:60Z",
        "2026-05-02T09:00:00+24:00",
        "2026-05-02T09:00:00+01:60",
        "2026-05-02T09:00:00.Z",
        "2026-05-02T09:00:00 UTC",
        " 2026-05-02T09:00:00Z",
        "2026-05-02T09:00:00Z\n",
        "٢026-05-02T09:00:00Z",
        "0001-01-01T00:00:00+23:59",
        "2026-W14-3T09:00:00Z",
        "2026-05-02T09:00:00+01",
        "2026-05-02T09:00:00+010:00",
    ],
)
def test_any_other_value_is_refused(value: Any) -> None:
    """The message has no part of the value: a log's content belongs in no other log."""
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the messages differ
        instant_of_text(value, BERLIN)
    assert (
        not isinstance(value, str)
        or not value.strip()
        or len(value) < 9
        or value.strip() not in str(error.value)
    )


def test_a_time_without_an_offset_needs_a_zone() -> None:
    with pytest.raises(ValueError, match="--zone"):
        instant_of_text("2026-04-01 09:00:00", None)
    assert instant_of_text("2026-04-01 09:00:00", BERLIN) == utc(2026, 4, 1, 7)
    assert instant_of_text("2026-01-01T09:00:00.25", BERLIN) == utc(2026, 1, 1, 8, 0, 0, 250_000)


@pytest.mark.parametrize(
    ("zone", "text", "expected"),
    [
        ("Europe/Berlin", "2026-10-25 02:00:00", utc(2026, 10, 25, 0)),
        ("Europe/Berlin", "2026-10-25 02:59:59.999999", utc(2026, 10, 25, 0, 59, 59, 999_999)),
        ("Europe/Berlin", "2026-10-25 03:00:00", utc(2026, 10, 25, 2)),
        ("America/New_York", "2026-11-01 01:30:00", utc(2026, 11, 1, 5, 30)),
        ("Australia/Lord_Howe", "2026-04-05 01:45:00", utc(2026, 4, 4, 14, 45)),
        ("Europe/Berlin", "2026-03-29 01:59:59", utc(2026, 3, 29, 0, 59, 59)),
        ("Europe/Berlin", "2026-03-29 03:00:00", utc(2026, 3, 29, 1)),
    ],
)
def test_an_hour_that_comes_twice_is_the_earlier(zone: str, text: str, expected: datetime) -> None:
    assert instant_of_text(text, ZoneInfo(zone)) == expected


@pytest.mark.parametrize(
    ("zone", "text"),
    [
        ("Europe/Berlin", "2026-03-29 02:00:00"),
        ("Europe/Berlin", "2026-03-29 02:59:59.999999"),
        ("America/New_York", "2026-03-08 02:30:00"),
        ("Australia/Lord_Howe", "2026-10-04 02:15:00"),
        ("Pacific/Apia", "2011-12-30 12:00:00"),
    ],
)
def test_a_time_that_the_clock_skips_is_refused(zone: str, text: str) -> None:
    with pytest.raises(ValueError, match="skips"):
        instant_of_text(text, ZoneInfo(zone))


@pytest.mark.parametrize(
    ("unit", "value", "microseconds"),
    [
        ("s", 1780271999, 1780271999_000000),
        ("s", "1780271999", 1780271999_000000),
        ("s", 1780271999.5, 1780271999_500000),
        ("s", 1780271999.999999, 1780271999_999999),
        ("s", "1780271999.9999999", 1780271999_999999),
        ("s", "1.780271999e9", 1780271999_000000),
        ("s", 0, 0),
        ("s", -0.0, 0),
        ("ms", 1772323200012, 1772323200_012000),
        ("ms", "1772323200012.5", 1772323200_012500),
        ("ms", 1.772323200012e12, 1772323200_012000),
        ("us", 1772323200_012345, 1772323200_012345),
        ("ns", 1790000001001234567, 1790000001_001234),
        ("ns", "1790000001001234999", 1790000001_001234),
        ("ns", "0000001790000001001234567", 1790000001_001234),
    ],
)
def test_a_number_counts_from_1970(unit: str, value: Any, microseconds: int) -> None:
    """Whole numbers are exact, also beyond 2^53; digits below a microsecond are cut."""
    instant = instant_of_number(unit)(value, None)
    assert (instant - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 0 == 0
    whole = instant - datetime(1970, 1, 1, tzinfo=UTC)
    assert (whole.days * 86400 + whole.seconds) * 10**6 + whole.microseconds == microseconds


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        "",
        "soon",
        "1e",
        "0x10",
        "1_000",
        "\u0661",
        " 1",
        "1 ",
        "nan",
        "inf",
        [],
        {},
        -1,
        -0.5,
        "-1",
        10**18,
        10**400,
        1e300,
        "1e99",
        "9" * 30,
        float("inf"),
        float("nan"),
        "1e999999999",
        "9" * 5000,
        "2026-04-01T09:00:00Z",
    ],
)
def test_any_other_number_is_refused(value: Any) -> None:
    for unit in ("s", "ms", "us", "ns"):
        if unit in ("us", "ns") and value == 10**18:
            continue
        with pytest.raises(ValueError, match="it is"):
            instant_of_number(unit)(value, None)
