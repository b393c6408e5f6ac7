"""The chart of a day's page: its hours beside the usual ones."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from app.detection import Kind
from app.reports.day import DayHour, DayHours
from app.reports.days import instant_of
from app.reports.findings import Finding
from app.web.pages.charts import Bar, Chart
from app.web.pages.formatting import count_of, number

_HOUR = timedelta(hours=1)
_EVERY = 2  # hours between two labels
# Within an unusual day, these hours are the unusual ones.
_EXCESS = 2
_SPIKES = {Kind.SPIKE, Kind.RETRY_LOOP, Kind.UNUSUAL_HOUR}


def hours_chart(hours: DayHours, findings: Sequence[Finding], now: datetime) -> Chart:
    """The hours of a day. Those that the day's findings call unusual are marked."""
    return Chart(
        [
            Bar(
                one.count,
                _lines(one, is_counted=place < hours.counted),
                before=one.usual,
                kind=_kind(one, findings, now),
                tick=str(one.hour.begin.hour) if one.hour.begin.hour % _EVERY == 0 else "",
            )
            for place, one in enumerate(hours.hours)
        ]
    )


def _lines(one: DayHour, *, is_counted: bool) -> tuple[str, ...]:
    begin = one.hour.begin
    # The end by the clock of the zone, which may be changed at that instant.
    end = (begin.astimezone(UTC) + _HOUR).astimezone(begin.tzinfo)
    lines = [
        f"{begin:%H:%M}\N{EN DASH}{end:%H:%M}",
        count_of(one.count, "token") if is_counted else "not counted yet",
    ]
    return (*lines, *([] if one.usual is None else [f"usual {number(one.usual)}"]))


def _kind(one: DayHour, findings: Sequence[Finding], now: datetime) -> str:
    begin = instant_of(one.hour.number)
    if begin + _HOUR > now:
        return "part"
    of_hour = [each for each in findings if each.begins_at <= begin < each.ends_at]
    if any(each.kind is Kind.SILENCE and each.scope == "organization" for each in of_hour):
        return "" if one.count else "silent"
    is_odd = one.usual is None or one.count > _EXCESS * one.usual
    return "spike" if is_odd and any(each.kind in _SPIKES for each in of_hour) else ""
