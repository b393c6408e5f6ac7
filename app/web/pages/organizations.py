"""Page of all organizations for operators, with links to the pages of each."""

from dataclasses import replace
from typing import NamedTuple

from flask import Blueprint, Response, g

from app.auth.claims import ANALYTICS_READ_ANY
from app.reports import organizations
from app.reports.organizations import PERIODS, Organization
from app.web import params, rate_limit
from app.web.api.schemas import OrganizationRow
from app.web.context import Snapshot, connection, services
from app.web.pages import signin
from app.web.pages.charts import spark_path
from app.web.pages.filters import RANGE_NAMES, Filters, given_of, parse_filters
from app.web.pages.frame import frame_response
from app.web.responses import long_csv_response

SIZE = 50  # organizations on a page
# The jobs make the list every hour.
INTERVAL_SECONDS = 3600
_USUAL_PERIOD = "28d"
# The heads that sort, and what they sort by.
HEADS = {
    "id": "Organization",
    "tokens": "Tokens",
    "change": "Change",
    "agents": "Agents",
    "lastDay": "Last day",
    "openFindings": "Findings",
}

bp = Blueprint("operator", __name__, url_prefix="/dashboard")
bp.before_request(signin.require_session)


@bp.before_request
def require_operator() -> None:
    """Require the scope ``analytics:read:any``; the request then reads all organizations.

    Raises:
        ForbiddenError: the session does not have it.
    """
    signin.require_scope(ANALYTICS_READ_ANY)
    g.for_operators = True


bp.before_request(rate_limit.count_request)


@bp.get("/organizations")
def page() -> Response:
    """Every organization: tokens, change, share, agents, last day, open findings, sparkline."""
    arguments = given_of(params.arguments())
    # The list is of no organization, whichever the address names.
    filters = replace(parse_filters(arguments, services().clock()), organization=None)
    wanted = params.organizations_wanted(arguments, _period(filters))
    after = params.organizations_cursor(arguments, wanted)
    number = 1 if after is None else params.page(arguments)
    found = organizations.organizations_page(connection(), wanted, limit=SIZE, after=after)
    return frame_response(
        "organizations.html",
        filters,
        found.days.counted_at,
        interval_seconds=INTERVAL_SECONDS,
        ranges={name: RANGE_NAMES[name] for name in PERIODS},
        heads=HEADS,
        wanted=wanted,
        listed=found,
        rows=_rows(found.organizations),
        place=Place(number, len(found.organizations)),
        next_cursor=params.next_organizations_cursor(found.next_after, wanted),
    )


@bp.get("/organizations.csv")
def file() -> Response:
    """The organizations that match as CSV."""
    arguments = given_of(params.arguments())
    period = _period(parse_filters(arguments, services().clock()))
    wanted = params.organizations_wanted(arguments, period)
    snapshot = Snapshot()
    with snapshot.kept():
        days = organizations.organization_days(snapshot.connection, period)
        rows = organizations.OrganizationRows(snapshot.connection, wanted)
        name = "-".join(["organizations", *([f"{days.first}--{days.last}"] if days.first else [])])
        return long_csv_response(name, OrganizationRow, rows, snapshot)


def _period(filters: Filters) -> str:
    """The period of the list for a page's range; another page may have a range that it lacks."""
    return filters.range if filters.range in PERIODS else _USUAL_PERIOD


class Place(NamedTuple):
    """The place of a page in the list: its number, and how many organizations it has."""

    number: int
    length: int

    @property
    def first(self) -> int:
        return (self.number - 1) * SIZE + 1

    @property
    def last(self) -> int:
        return self.first + self.length - 1


class Row(NamedTuple):
    """An organization, its part of the largest one on the page, and its sparkline."""

    organization: Organization
    part: float
    path: str


def _rows(found: list[Organization]) -> list[Row]:
    largest = max((one.token_count for one in found), default=0) or 1
    return [
        Row(one, one.token_count / largest, spark_path(one.sparkline, max(one.sparkline)))
        for one in found
    ]
