"""Organizations: the list of all of them for operators, at ``/api/v1/organizations``."""

from flask import Blueprint, Response

from app.reports import organizations
from app.reports.organizations import OrganizationPlace, OrganizationsPage, OrganizationsWanted
from app.web import params, rate_limit
from app.web.api import access
from app.web.api.schemas import OrganizationList
from app.web.context import Snapshot, connection
from app.web.responses import long_report_response, report_response, wants_csv

bp = Blueprint("organizations", __name__, url_prefix="/api/v1")
bp.before_request(access.authenticate)
bp.before_request(access.require_operator)
bp.before_request(rate_limit.count_request)


@bp.get("/organizations")
@bp.get("/organizations.csv")
def list_organizations() -> Response:
    """Every organization with its tokens in a period, one page at a time, and the totals of all.

    CSV has all of them, unless ``limit`` or ``cursor`` is given.
    """
    arguments = params.arguments()
    wanted = params.organizations_wanted(arguments, params.period(arguments))
    after = params.organizations_cursor(arguments, wanted)
    limit = params.limit(arguments)
    if wants_csv() and limit is None and after is None:
        return _all_as_csv(wanted)
    page = organizations.organizations_page(
        connection(), wanted, limit=limit or params.DEFAULT_PAGE, after=after
    )
    return report_response(_body(page, wanted), page.days.counted_at)


def _all_as_csv(wanted: OrganizationsWanted) -> Response:
    # The first page has everything that comes before the rows.
    page = organizations.organizations_page(connection(), wanted, limit=1)
    snapshot = Snapshot()
    with snapshot.kept():
        rows = organizations.OrganizationRows(snapshot.connection, wanted)
        return long_report_response(_body(page, wanted), rows, snapshot)


def _body(page: OrganizationsPage, wanted: OrganizationsWanted) -> OrganizationList:
    place: OrganizationPlace | None = page.next_after
    return OrganizationList(
        wanted.period,
        page.days.first,
        page.days.last,
        page.days.counted_at,
        page.totals,
        page.found,
        page.organizations,
        params.next_organizations_cursor(place, wanted),
    )
