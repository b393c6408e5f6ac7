"""Demonstration data of the release 0.1.0. A database that was filled by it goes on with it.

The story of :mod:`app.cli.demo_story` has other sizes, so all that follows would be unusual.
"""

import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta

from app.cli.demo_story import NAMES, ORGANIZATION, PREFIX, agent_id
from app.intake.events import Event

DAYS = 90

# Every period of 90 days has one day of each kind.
_SPIKE_DAY, _SILENT_DAY = 31, 49
_SPIKE, _WEEKEND, _NIGHT = 4.0, 0.15, 0.06
_OFFICE_HOURS = range(8, 18)
# Tokens per office hour: of the one agent that requests a token for every call, and of all others.
_GREEDY, _FRUGAL = 150.0, (0.2, 0.5, 0.8, 1.6)


def day_events(day: date) -> Iterator[Event]:
    """All events of a day, future ones included. They depend on its date only."""
    if day.toordinal() % DAYS == _SILENT_DAY:
        return
    # S311: these numbers are not secret. Every machine has to draw the same ones.
    dice = random.Random(day.isoformat())  # noqa: S311
    volume = _WEEKEND if day.isoweekday() >= 6 else 1.0
    if day.toordinal() % DAYS == _SPIKE_DAY:
        volume = _SPIKE
    for number, name in enumerate(NAMES):
        usual = _FRUGAL[number % len(_FRUGAL)] if number else _GREEDY
        agent = agent_id(ORGANIZATION, name)
        for hour in range(24):
            expected = usual * volume * (1 if hour in _OFFICE_HOURS else _NIGHT)
            count = int(expected * dice.uniform(0.7, 1.3) + dice.random())
            start = datetime.combine(day, time(hour), UTC)
            for one in range(count):
                moment = start + timedelta(microseconds=dice.randrange(3_600_000_000))
                event_id = f"{PREFIX}{day}-{number:02}-{hour:02}-{one:04}"
                yield Event(ORGANIZATION, event_id, agent, moment, name)
