"""Filters of the dashboard: the range, the comparison, the zone and the organization of a page.

They are in the query of every page, which is parsed as strictly as the API's. A cookie has the zone
that the browser chose last.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from flask import Response, request, url_for
from werkzeug.datastructures import MultiDict

from app.dates import parse_zone
from app.reports.days import Days
from app.web import params

# Whole weeks, so that weekends compare with weekends.
RANGES = {"7d": 7, "28d": 28, "13w": 91, "12m": 364}
RANGE_NAMES = {"7d": "7 days", "28d": "4 weeks", "13w": "13 weeks", "12m": "12 months"}
DATES = "dates"  # the range of two dates
COMPARISONS = ("before", "year", "none")
YEAR_DAYS = 364  # a year in whole weeks
# The suggestions of the form. A page accepts every other zone too.
COMMON_ZONES = (
    *("America/Los_Angeles", "America/Denver", "America/Chicago", "America/New_York"),
    *("America/Sao_Paulo", "Europe/London", "Europe/Berlin", "Europe/Helsinki", "Asia/Dubai"),
    *("Asia/Kolkata", "Asia/Shanghai", "Asia/Tokyo", "Australia/Sydney", "Pacific/Auckland"),
)
_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)
DEFAULT_RANGE = "28d"
_NONE: Mapping[str, Any] = {}
_ZONE_COOKIE, _ZONE_SECONDS = "analytics_zone", 365 * 24 * 3600


@dataclass(frozen=True)
class Filters:
    """The parameters of a page, with defaults for absent ones.

    ``range``: a key of RANGES, or DATES. ``days``: the days of the range, in the zone. ``today``
    is of the zone, too. ``zone``: the name of a chosen zone, or ``None`` for UTC. ``organization``:
    whose numbers an operator reads; ``None`` for the session's own organization.
    """

    today: date
    range: str
    days: Days
    comparison: str
    zone: str | None
    organization: str | None

    @property
    def compared(self) -> Days | None:
        """The days that these are compared with; as many, on the same days of the week."""
        if self.comparison == "none":
            return None
        ago = (YEAR_DAYS if self.comparison == "year" else _weeks(len(self.days))) * _DAY
        return Days(self.days.first - ago, self.days.last - ago, self.days.zone)

    @property
    def half_hours(self) -> bool:
        """Whether the hours of the zone begin within a UTC hour, so that days begin late."""
        zone = self.days.zone
        if zone is None:
            return False
        noon = datetime.combine(self.days.last, datetime.min.time(), zone) + 12 * _HOUR
        return bool((noon.utcoffset() or timedelta(0)) % _HOUR)

    @property
    def zones(self) -> list[str]:
        """The zones of the form, with the chosen one."""
        return sorted({*COMMON_ZONES, *([self.zone] if self.zone not in (None, "UTC") else [])})

    def query(self, **changes: object) -> dict[str, str]:
        """The query of a page with these filters, some of them changed; defaults are left out."""
        # Templates pass the fields of this class as keywords.
        filters = replace(self, **changes)  # type: ignore[arg-type]
        is_dates = filters.range == DATES
        values = {
            "range": (None if is_dates else filters.range, DEFAULT_RANGE),
            "from": (filters.days.first if is_dates else None, None),
            "to": (filters.days.last if is_dates else None, None),
            "vs": (filters.comparison, COMPARISONS[0]),
            "zone": (filters.zone, None),
            params.ORGANIZATION: (filters.organization, None),
        }
        return {
            name: str(value)
            for name, (value, default) in values.items()
            if value not in (None, default)
        }

    def url(self, endpoint: str, values: Mapping[str, Any] = _NONE, **changes: object) -> str:
        """The address of a page with these filters; ``values`` are its own parameters."""
        parameters: dict[str, Any] = {**values, **self.query(**changes)}
        return url_for(endpoint, **parameters)

    def dates(self, first: date, last: date) -> dict[str, Any]:
        """Changes for :meth:`query` and :meth:`url`: these dates as the range."""
        return {"range": DATES, "days": Days(first, last, self.days.zone)}


def parse_filters(args: MultiDict[str, str], now: datetime) -> Filters:
    """Parse a page's query. An empty field of a form counts as absent.

    Without ``zone``, the zone that this browser chose last is used.

    Raises:
        ValidationError: a parameter is invalid.
    """
    given = given_of(args)
    zone = params.zone(given) if "zone" in given else _zone_of_browser()
    today = (now.astimezone(zone) if zone else now).date()
    name = params.optional_one_of(given, "range", tuple(RANGES)) or DEFAULT_RANGE
    # The form sends its two fields beside the range that was shown before.
    dates = params.date_range(given, instead_of="days") if _has_dates(given) else None
    days = dates or Days(today - timedelta(days=RANGES[name] - 1), today)
    return Filters(
        today=today,
        range=name if dates is None else DATES,
        days=Days(days.first, days.last, zone),
        comparison=params.one_of(given, "vs", COMPARISONS),
        zone=None if zone is None else zone.key,
        organization=params.organization_id(given),
    )


def given_of(args: MultiDict[str, str]) -> MultiDict[str, str]:
    """The parameters that are not empty."""
    return MultiDict((name, value) for name, value in args.items(multi=True) if value)


def _has_dates(given: MultiDict[str, str]) -> bool:
    return "from" in given or "to" in given


def keep_zone(response: Response) -> Response:
    """Keep the zone of this request's query in the browser."""
    zone = request.args.get("zone")
    if zone and response.status_code < 400:
        response.set_cookie(
            _ZONE_COOKIE,
            zone,
            max_age=_ZONE_SECONDS,
            path=request.script_root or "/",
            secure=request.is_secure,
            httponly=True,
            samesite="Lax",
        )
    return response


def _zone_of_browser() -> ZoneInfo | None:
    """The zone in the browser's cookie; ``None`` without one, or if it is unknown."""
    try:
        return parse_zone(request.cookies.get(_ZONE_COOKIE, ""))
    except ValueError:
        return None


def _weeks(days: int) -> int:
    """The days of whole weeks that hold so many days."""
    return -(-days // 7) * 7
