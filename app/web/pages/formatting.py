"""Formatting of numbers, dates and times on pages, as Jinja filters."""

import shlex
from collections.abc import Callable
from datetime import date, datetime
from typing import Any

from flask import Flask
from markupsafe import Markup

from app.reports.activity import Cell
from app.reports.trend import Day

_DAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July", "August"),
    *("September", "October", "November", "December"),
)
_STATES = {"whole": "", "partial": "so far", "pending": "not counted yet"}
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


def share(value: float) -> str:
    """A share in percent. Rounding never shows 0 % for a part, or 100 % for less than all."""
    if 0 < value < 0.001:
        return "under\N{NO-BREAK SPACE}0.1\N{NO-BREAK SPACE}%"
    if 0.999 < value < 1:
        return "over\N{NO-BREAK SPACE}99.9\N{NO-BREAK SPACE}%"
    return f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def change(value: float) -> str:
    """Growth in percent, with its sign."""
    return f"{100 * value:+,.1f}\N{NO-BREAK SPACE}%".replace("-", "\N{MINUS SIGN}")


def day(value: date) -> str:
    """``Tue 31 Mar``. The dashboard shows recent days, so the year is left out."""
    weekday, month = _DAYS[value.isoweekday() % 7], _MONTHS[value.month - 1]
    return f"{weekday[:3]} {value.day} {month[:3]}"


def month(value: date) -> str:
    """``March 2026``."""
    return f"{_MONTHS[value.month - 1]} {value.year}"


def weekday(cell: Cell) -> str:
    """``Tue``."""
    return _DAYS[cell.dow][:3]


def hour_range(cell: Cell) -> str:
    """``Tuesday 12-13``, with an en dash."""
    return f"{_DAYS[cell.dow]} {cell.hour}{_DASH}{cell.hour + 1}"


def clock_time(value: datetime, today: date) -> str:
    """``12:03:15 UTC``, with the day in front unless it is today."""
    date_part = "" if value.date() == today else f"{day(value.date())}, "
    return f"{date_part}{value:%H:%M:%S} UTC"


def age(seconds: int) -> str:
    """``4 s``, ``2 min``, ``3 h``, ``5 d``: the largest unit that fits."""
    size, unit = next((one for one in _UNITS if seconds >= one[0]), _UNITS[-1])
    return f"{seconds // size} {unit}"


def utc_offset(minutes: int) -> str:
    """``5:30 hours ahead of``, ``1 hour behind``, ``the same as``; the page adds ``UTC``."""
    if not minutes:
        return "the same as"
    hours, rest = divmod(abs(minutes), 60)
    amount = f"{hours}:{rest:02} hours" if rest else count_of(hours, "hour")
    return f"{amount} ahead of" if minutes > 0 else f"{amount} behind"


def tokens(value: Day) -> str:
    """A day's tokens; a dash for a day that is not counted yet."""
    return _DASH if value.state == "pending" else number(value.count)


def day_note(value: Day) -> str:
    """The note of a day: ``so far``, ``not counted yet``, or empty."""
    return _STATES[value.state]


def bar_class(value: Day) -> Markup:
    """The ``class`` attribute of a day's bar; empty for an ordinary day."""
    state = "" if value.state == "whole" else value.state
    names = " ".join(filter(None, (state, "weekend" if value.weekend else "")))
    return Markup(' class="{}"').format(names) if names else Markup("")


def day_summary(value: Day) -> str:
    """A day as text: ``Tue 31 Mar: 1,234, so far``."""
    return ", ".join(filter(None, (f"{day(value.date)}: {tokens(value)}", day_note(value))))


FILTERS: tuple[Callable[..., Any], ...] = (
    *(number, count_of, share, change, day, month, weekday, hour_range),
    *(clock_time, age, utc_offset, tokens, day_note, bar_class, day_summary),
)
