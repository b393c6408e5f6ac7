"""Formatting of numbers, dates and times on pages, as Jinja filters."""

import shlex
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from flask import Flask
from markupsafe import Markup

from app.reports.days import Days
from app.web.pages.filters import RANGE_NAMES, Filters

_DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July", "August"),
    *("September", "October", "November", "December"),
)
_SMALL = 10  # below it, an average has a decimal
_DASH = "\N{EN DASH}"
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def init_app(app: Flask) -> None:
    """Register the filters for templates."""
    # Without these options each line with only a statement leaves a blank line in the page.
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.filters.update({each.__name__: each for each in FILTERS} | {"shell": shlex.quote})


def number(value: float) -> str:
    """``1234`` as ``1,234``."""
    return f"{value:,.0f}"


def count_of(value: int, thing: str) -> str:
    """``1 day``, ``2 days``."""
    return f"{number(value)} {thing}{'' if value == 1 else 's'}"


def percent(value: float) -> str:
    """A length for SVG: ``3.57%``."""
    return f"{round(value, 2):g}%"


def share(value: float) -> str:
    """A share in percent. Rounding never shows 0 % for a part, or 100 % for less than all."""
    if 0 < value < 0.001:
        return "under\N{NO-BREAK SPACE}0.1\N{NO-BREAK SPACE}%"
    if 0.999 < value < 1:
        return "over\N{NO-BREAK SPACE}99.9\N{NO-BREAK SPACE}%"
    return f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def delta(value: float | None) -> Markup:
    """Growth in percent with an arrow; a dash where nothing can be compared."""
    if value is None:
        return Markup('<span class="delta none">{}</span>').format(_DASH)
    arrow = "\N{BLACK UP-POINTING TRIANGLE}" if value > 0 else "\N{BLACK DOWN-POINTING TRIANGLE}"
    amount = f"{abs(100 * value):,.1f}\N{NO-BREAK SPACE}%"
    if amount.startswith("0.0"):
        return Markup('<span class="delta">{}</span>').format(amount)
    word = "up" if value > 0 else "down"
    return Markup(
        '<span class="delta"><span aria-hidden="true">{}</span><span class="hidden">{}</span>'
        "\N{NO-BREAK SPACE}{}</span>"
    ).format(arrow, word, amount)


def times(value: float) -> str:
    """``3.4 times``, ``19 times``."""
    return f"{value:,.0f} times" if value >= 9.95 else f"{value:.1f} times"


def money(value: float, currency: str) -> str:
    """``1,234.50 EUR``."""
    return f"{value:,.2f}\N{NO-BREAK SPACE}{currency}"


def sentence(text: str) -> str:
    """A message as a sentence: with a capital letter and a full stop."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


def days_ago(days: int) -> str:
    """``today``, ``yesterday``, ``12 days ago``, ``3 months ago``."""
    if days < 2:
        return "yesterday" if days == 1 else "today"
    return f"{days} days ago" if days < 61 else f"{days // 30} months ago"


def duration(seconds: int) -> str:
    """``1 hour``, ``5 minutes``, ``90 seconds``: the largest unit that divides it."""
    for size, unit in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size and seconds % size == 0:
            return count_of(seconds // size, unit)
    return count_of(seconds, "second")


def change(value: float) -> str:
    """Growth in percent, with its sign."""
    return f"{100 * value:+,.1f}\N{NO-BREAK SPACE}%".replace("-", "\N{MINUS SIGN}")


def day(value: date) -> str:
    """``Tue 31 Mar``. The dashboard shows recent days, so the year is left out."""
    weekday, month = _DAYS[value.isoweekday() % 7], _MONTHS[value.month - 1]
    return f"{weekday[:3]} {value.day} {month[:3]}"


def long_day(value: date) -> str:
    """``Sunday 1 November 2026``."""
    return f"{long_weekday(value)} {value.day} {_MONTHS[value.month - 1]} {value.year}"


def long_weekday(value: date) -> str:
    """``Sunday``."""
    return _DAYS[value.isoweekday() % 7]


def hours_path(active: Sequence[bool]) -> str:
    """A path with a mark for each hour in use, in a box that is one wide for each and 12 high."""
    return "".join(f"M{place} 9v-6h.8v6z" for place, is_on in enumerate(active) if is_on)


def short_day(value: date) -> str:
    """``2 Nov``."""
    return f"{value.day} {_MONTHS[value.month - 1][:3]}"


def period(days: Days) -> str:
    """``31 Oct`` to ``27 Nov 2026``, with an en dash; the first year only if it is another one."""
    first, last = days.first, days.last
    end = f"{short_day(last)} {last.year}"
    if first == last:
        return end
    return f"{short_day(first)}{'' if first.year == last.year else f' {first.year}'} {_DASH} {end}"


def period_name(filters: Filters) -> str:
    """The length of a page's range: ``4 weeks``, ``12 days``."""
    return RANGE_NAMES.get(filters.range) or count_of(len(filters.days), "day")


def month(value: date) -> str:
    """``March 2026``."""
    return f"{_MONTHS[value.month - 1]} {value.year}"


def weekday_name(dow: int) -> str:
    """``Tuesday`` for 2; 0 is Sunday."""
    return _DAYS[dow]


def hours(hour: int, count: int = 1, minute: int = 0) -> str:
    """Some hours of a day: ``12-13`` with an en dash, or ``12:30-13:30``; 24 is midnight."""
    end = (hour + count - 1) % 24 + 1
    if not minute:
        return f"{hour}{_DASH}{end}"
    return f"{hour}:{minute:02}{_DASH}{end % 24}:{minute:02}"


def average(value: float) -> str:
    """A number of tokens on average: ``0.3``, ``478``."""
    return f"{value:.1f}".removesuffix(".0") if value < _SMALL else number(value)


def clock_time(value: datetime, today: date) -> str:
    """``12:03:15 UTC``, with the day in front unless it is today."""
    date_part = "" if value.date() == today else f"{day(value.date())}, "
    return f"{date_part}{value:%H:%M:%S} UTC"


def moment(value: datetime, zone: ZoneInfo | None) -> str:
    """``Tue 31 Mar 2026, 12:03`` on the clock of a zone, UTC without one."""
    local = value.astimezone(zone or UTC)
    return f"{day(local.date())} {local.year}, {local:%H:%M}"


def clock(value: datetime, zone: ZoneInfo | None) -> str:
    """``16:00`` on the clock of a zone, UTC without one."""
    return f"{value.astimezone(zone or UTC):%H:%M}"


def age(seconds: int) -> str:
    """``4 s``, ``2 min``, ``3 h``, ``5 d``: the largest unit that fits."""
    size, unit = next((one for one in _UNITS if seconds >= one[0]), _UNITS[-1])
    return f"{seconds // size} {unit}"


FILTERS: tuple[Callable[..., Any], ...] = (
    *(number, count_of, percent, share, change, day, month, weekday_name, hours, average),
    *(
        moment,
        clock,
        short_day,
        long_day,
        long_weekday,
        hours_path,
        period,
        period_name,
        delta,
        times,
        money,
        sentence,
        days_ago,
        duration,
    ),
    *(clock_time, age),
)
