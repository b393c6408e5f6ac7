"""Filters of the dashboard: the page's query, parsed as strictly as the API's."""

from dataclasses import dataclass, replace
from datetime import date
from zoneinfo import ZoneInfo

from werkzeug.datastructures import MultiDict

from app.dates import month_of, months_back
from app.reports.usage import SORTS
from app.web import params

PERIODS = (7, 30, 90)
SPANS = (1, 3, 6, 12, 24)
MONTHS = 24  # in the list of months
TOP_AGENTS, PAGE_AGENTS = 20, 100


@dataclass(frozen=True)
class Filters:
    """The parameters of the page, with defaults for absent ones."""

    today: date
    days: int
    months: int | None
    zone: ZoneInfo | None
    month: date
    search: str | None
    sort: str
    all_agents: bool
    page: int

    @property
    def limit(self) -> int:
        """The number of agents on a page."""
        return PAGE_AGENTS if self.all_agents else TOP_AGENTS

    @property
    def offset(self) -> int:
        """The number of agents before the page."""
        return (self.page - 1) * self.limit

    @property
    def this_month(self) -> date:
        return month_of(self.today)

    @property
    def month_options(self) -> list[date]:
        """The months of the list, newest first, with the selected one."""
        months = [months_back(self.this_month, ago) for ago in range(MONTHS)]
        return sorted({*months, self.month}, reverse=True)

    def query(self, **changes: object) -> dict[str, str]:
        """The page's query with some filters changed; default values are left out."""
        # Templates pass the fields of this class as keywords.
        filters = replace(self, **changes)  # type: ignore[arg-type]
        values = {
            "days": (filters.days, params.DEFAULT_DAYS),
            "months": (filters.months, None),
            "zone": (filters.zone and filters.zone.key, None),
            "month": (f"{filters.month:%Y-%m}", f"{filters.this_month:%Y-%m}"),
            "q": (filters.search, None),
            "sort": (filters.sort, SORTS[0]),
            "agents": ("all" if filters.all_agents else None, None),
            "page": (filters.page, 1),
        }
        return {name: str(value) for name, (value, default) in values.items() if value != default}


def parse_filters(args: MultiDict[str, str], today: date) -> Filters:
    """Parse the page's query. An empty field of a form counts as absent.

    Raises:
        ValidationError: a parameter is invalid.
    """
    given = MultiDict((name, value) for name, value in args.items(multi=True) if value)
    all_agents = params.one_of(given, "agents", ("top", "all")) == "all"
    return Filters(
        today=today,
        days=params.days(given),
        months=params.months(given),
        zone=params.zone(given),
        month=params.month(given, month_of(today)),
        search=params.search(given),
        sort=params.one_of(given, "sort", SORTS),
        all_agents=all_agents,
        page=params.page(given) if all_agents else 1,
    )
