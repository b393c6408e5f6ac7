"""The chart of a finding's page: the days before it and since."""

from app.reports.agent import counted_days, whole_days
from app.reports.base import Report
from app.reports.days import Days
from app.reports.findings import Finding
from app.reports.trend import DayCount
from app.reports.usual_days import usual_of
from app.web.pages.charts import Chart
from app.web.pages.day_bars import DayBars, marks_of
from app.web.pages.filters import Filters


def since_chart(finding: Finding, report: Report[DayCount], filters: Filters) -> Chart:
    """The days before a finding and since, each beside its usual tokens."""
    points = report.points
    days = Days(points[0].date, points[-1].date, filters.days.zone)
    counts = {point.date: point.count for point in points}
    bars = DayBars(
        points,
        None,
        whole_days(days, report.counted_at),
        counted_days(days, report.counted_at),
        filters.today,
        {point.date: usual_of(point.date, counts, points[0].date) for point in points},
        marks_of([finding], filters.days.zone, filters.today),
        lambda first, _last: filters.url("day.page", {"day": first}),
    )
    return Chart(bars.bars())
