"""What somebody chose to see on the dashboard: the page's query, read as strictly as the API's."""

from dataclasses import dataclass, replace
from datetime import date
from zoneinfo import ZoneInfo

from werkzeug.datastructures import MultiDict

from app.dates import month_of, months_back
from app.web import params

SORTS = ("count", "name", "id")
PERIODS = (7, 30, 90)
SPANS = (1, 3, 6, 12, 24)
MONTHS = 24  # to choose one from


@dataclass(frozen=True)
class Choices:
    """The parameters of the page, those left out at what they are then."""

    today: date
    days: int
    months: int | None
    zone: ZoneInfo | None
    month: date
    search: str | None
    sort: str
    everyone: bool

    @property
    def this_month(self) -> date:
        return month_of(self.today)

    @property
    def earlier(self) -> list[date]:
        """The months to choose from, newest first; the chosen one is among them."""
        months = [months_back(self.this_month, ago) for ago in range(MONTHS)]
        return sorted({*months, self.month}, reverse=True)

    def query(self, **changes: object) -> dict[str, str]:
        """The page's query with some choices changed; what goes without saying is left out."""
        # Changes are this class's own fields, named in templates.
        wanted = replace(self, **changes)  # type: ignore[arg-type]
        said = {
            "days": (wanted.days, params.DEFAULT_DAYS),
            "months": (wanted.months, None),
            "zone": (wanted.zone and wanted.zone.key, None),
            "month": (f"{wanted.month:%Y-%m}", f"{wanted.this_month:%Y-%m}"),
            "q": (wanted.search, None),
            "sort": (wanted.sort, SORTS[0]),
            "agents": ("all" if wanted.everyone else None, None),
        }
        return {name: str(value) for name, (value, usual) in said.items() if value != usual}


def choices(args: MultiDict[str, str], today: date) -> Choices:
    """Read the page's query. A field of a form that was left empty is as good as left out.

    Raises:
        ValidationError: a parameter is wrong.
    """
    given = MultiDict((name, value) for name, value in args.items(multi=True) if value)
    return Choices(
        today=today,
        days=params.days(given),
        months=params.months(given),
        zone=params.zone(given),
        month=params.month(given, month_of(today)),
        search=params.search(given),
        sort=params.one_of(given, "sort", SORTS),
        everyone=params.one_of(given, "agents", ("top", "all")) == "all",
    )
