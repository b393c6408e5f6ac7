"""Quiet hours: when they end, over midnight and where clocks are changed."""

from datetime import UTC, datetime

import pytest

from app.alerts.webhooks import Quiet, quiet_until

NIGHT = Quiet("22:00", "06:00", "Europe/Berlin")
NOON = Quiet("12:00", "13:30", "UTC")


@pytest.mark.parametrize(
    ("quiet", "now", "until"),
    [
        (NIGHT, "2026-04-15T19:59", None),
        (NIGHT, "2026-04-15T20:00", "2026-04-16T04:00"),
        (NIGHT, "2026-04-16T03:59", "2026-04-16T04:00"),
        (NIGHT, "2026-04-16T04:00", None),
        (NIGHT, "2026-12-31T22:30", "2027-01-01T05:00"),
        # The clock goes forward, and back.
        (NIGHT, "2026-03-28T22:00", "2026-03-29T04:00"),
        (NIGHT, "2026-10-24T22:00", "2026-10-25T05:00"),
        (Quiet("01:00", "02:30", "Europe/Berlin"), "2026-03-29T00:30", "2026-03-29T01:30"),
        (NOON, "2026-04-15T11:59", None),
        (NOON, "2026-04-15T12:00", "2026-04-15T13:30"),
        (NOON, "2026-04-15T13:30", None),
        (Quiet("22:00", "06:00", "Asia/Kolkata"), "2026-04-15T17:00", "2026-04-16T00:30"),
        # A zone that another host knew is taken for UTC.
        (Quiet("22:00", "06:00", "Mars/Olympus"), "2026-04-15T22:00", "2026-04-16T06:00"),
    ],
)
def test_the_end_of_quiet_hours(quiet, now, until):
    at = datetime.fromisoformat(now).replace(tzinfo=UTC)
    end = None if until is None else datetime.fromisoformat(until).replace(tzinfo=UTC)
    assert quiet_until(quiet, at) == end
