"""Habits: when an agent of the generator is issued tokens, without anything unusual."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

from tests.insight.dice import Dice

# A zone of offices, and the holidays there: month and day.
_CHRISTMAS = ((12, 25), (12, 26), (1, 1))
PLACES = {
    "America/Los_Angeles": (*_CHRISTMAS, (7, 4), (11, 27), (11, 28), (5, 26), (9, 1), (1, 20)),
    "America/New_York": (*_CHRISTMAS, (7, 4), (11, 27), (11, 28), (5, 26), (9, 1), (2, 17)),
    "America/Sao_Paulo": (*_CHRISTMAS, (3, 3), (3, 4), (4, 21), (5, 1), (9, 7), (10, 12), (11, 15)),
    "Europe/London": (*_CHRISTMAS, (4, 18), (4, 21), (5, 5), (5, 26), (8, 25)),
    "Europe/Berlin": (*_CHRISTMAS, (4, 18), (4, 21), (5, 1), (5, 29), (6, 9), (10, 3)),
    "Asia/Kolkata": ((1, 26), (3, 14), (8, 15), (10, 2), (10, 21), (12, 25)),
    "Asia/Singapore": ((1, 1), (1, 29), (1, 30), (5, 1), (8, 9), (10, 20), (12, 25)),
    "Asia/Tokyo": ((1, 1), (1, 2), (1, 3), (4, 29), (5, 3), (5, 4), (5, 5), (5, 6), (11, 3)),
    "Australia/Sydney": (*_CHRISTMAS, (1, 27), (4, 18), (4, 21), (4, 25), (6, 9), (10, 6)),
}
_LULL = ((12, 22), (12, 31))
_LULL_PLACES = ("America", "Europe", "Australia")

_OFFICE = (*[0.02] * 7, 0.3, 0.8, *[1.0] * 3, 0.8, *[1.0] * 4, 0.7, 0.25, 0.1, *[0.03] * 4)
_EVENING = (0.5, 0.2, *[0.03] * 6, *[0.1] * 8, 0.3, 0.6, *[1.0] * 4, 0.9, 0.7)
KINDS = ("office", "service", "evening", "hourly", "daily", "weekly", "monthly", "on demand")
_CHANCES = (34, 20, 8, 10, 10, 5, 4, 9)
# Of an organization that rests at night: nothing runs around the clock.
_CHANCES_OF_DAY = (60, 0, 0, 0, 16, 8, 6, 10)


@cache
def offset_hours(zone: str, day: date) -> int:
    """The offset of a zone at noon, in hours cut to whole ones."""
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    offset = noon.astimezone(ZoneInfo(zone)).utcoffset() or timedelta()
    return int(offset.total_seconds() // 3600)


@dataclass
class Place:
    """A zone, its holidays, and how much is left on them."""

    zone: str
    lull: float
    left: float

    def is_holiday(self, day: date) -> bool:
        """Whether offices are closed on a day that is no weekend."""
        return (day.month, day.day) in PLACES[self.zone] and day.weekday() < 5

    def factor(self, day: date) -> float:
        """How much of a working day's tokens a holiday has; the Christmas lull as well."""
        if self.is_holiday(day):
            return self.left
        is_lull = (day.month, day.day) >= _LULL[0] and (day.month, day.day) <= _LULL[1]
        return self.lull if is_lull and self.zone.startswith(_LULL_PLACES) else 1.0


@dataclass
class Habit:
    """When one agent is issued tokens. ``mean`` is its tokens on a working day."""

    kind: str
    mean: float
    place: Place
    weekend: float
    night: float
    noise: float
    shape: float
    run_hour: int
    run_day: int
    active: float

    def hours(self, day: date) -> list[float]:
        """The expected tokens of the 24 UTC hours of a day."""
        shift = offset_hours(self.place.zone, day)
        if self.kind in ("office", "evening"):
            profile = _OFFICE if self.kind == "office" else _EVENING
            total = sum(profile)
            hours = [0.0] * 24
            for hour in range(24):
                local = hour + shift
                there = day + timedelta(days=local // 24)
                volume = self.weekend if there.weekday() >= 5 else self.place.factor(there)
                part = profile[local % 24]
                if part < 0.05:
                    part *= self.night
                hours[hour] = self.mean * volume * part / total
            return hours
        if self.kind == "service":
            soft = 1 - self.night / 2
            return [
                self.mean / 24 * (1.3 if 7 <= (hour + shift) % 24 < 19 else 0.7 * soft)
                for hour in range(24)
            ]
        return self._runs(day)

    def _runs(self, day: date) -> list[float]:
        hours = [0.0] * 24
        if self.kind == "hourly":
            return [self.mean / 24] * 24
        if self.kind == "on demand":
            return [self.mean / 8 if 8 <= hour < 16 else 0.0 for hour in range(24)]
        runs = {
            "daily": True,
            "weekly": day.weekday() == self.run_day % 7,
            "monthly": day.day == self.run_day,
        }
        if runs[self.kind]:
            hours[self.run_hour] = self.mean
        return hours

    @property
    def is_cron(self) -> bool:
        """Whether its runs have about the same tokens each time."""
        return self.kind in ("hourly", "daily", "weekly", "monthly")


def draw_habit(dice: Dice, place: Place, mean: float, *, rests: bool) -> Habit:
    """The habit of one agent; in an organization that ``rests`` it is one of the day."""
    kind = dice.choices(KINDS, _CHANCES_OF_DAY if rests else _CHANCES)[0]
    return Habit(
        kind,
        mean,
        place,
        weekend=dice.choice((0.0, 0.03, 0.1, 0.3)),
        night=0.0 if rests else dice.choice((0.0, 0.0, 0.5, 1.0)),
        noise=dice.uniform(0.02, 0.15),
        shape=dice.between(1.5, 30),
        run_hour=dice.randrange(24),
        run_day=dice.choice((1, 1, dice.randint(2, 28))),
        active=dice.uniform(0.15, 0.7),
    )
