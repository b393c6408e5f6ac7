"""How well the rest of a month is projected: ``python -m tests.insight.projecting 401-403 300``.

Each organization of the generator is projected at noon of each 15th whose month it has whole.
"""

import sys
from collections.abc import Iterator, Sequence
from datetime import date, timedelta

from app.dates import last_day, month_of
from app.detection.projection import USUAL_DAYS, course, like_days, part_of_day
from tests.insight.organizations import DAYS, Organization, organizations
from tests.insight.scoring import quantiles

_DAY = timedelta(days=1)
_NOON = 12
# Of a month with fewer tokens nothing can be said.
LEAST = 30


def errors(organization: Organization) -> Iterator[tuple[str, float]]:
    """For the organization (``""``) and each agent the error of each month, as a part of it."""
    whole = [sum(hour) for hour in zip(*organization.agents.values(), strict=True)]
    everybody = {"": whole, **organization.agents}
    for number in range(USUAL_DAYS, DAYS):
        today = organization.day(number)
        month = month_of(today)
        if today.day != 15 or month < organization.first:
            continue
        if last_day(month) > organization.day(DAYS - 1):
            continue
        part = _part(organization, whole, today)
        for name, hours in everybody.items():
            true = sum(_day(organization, hours, month + ago * _DAY) for ago in _month(month))
            if true >= LEAST:
                yield name, abs(_projected(organization, hours, today, part) - true) / true


def medians(seeds: Sequence[int], number: int) -> tuple[list[float], list[float]]:
    """The errors of organizations, and of agents."""
    ours: list[float] = []
    agents: list[float] = []
    for seed in seeds:
        for organization in organizations(seed, number):
            for name, error in errors(organization):
                (agents if name else ours).append(error)
    return ours, agents


def _month(month: date) -> range:
    return range((last_day(month) - month).days + 1)


def _projected(organization: Organization, hours: list[int], today: date, part: float) -> float:
    number = (today - organization.first).days
    counts = {
        organization.day(day): sum(hours[24 * day : 24 * day + 24])
        for day in range(max(number - USUAL_DAYS, 0), number)
    }
    first = next((day for day, count in counts.items() if count), None)
    counts = {day: count for day, count in counts.items() if first is not None and day >= first}
    counts[today] = sum(hours[24 * number : 24 * number + _NOON])
    return round(sum(course(counts, today, part).month))


def _part(organization: Organization, whole: list[int], today: date) -> float:
    days = ((day - organization.first).days for day in like_days(today))
    return part_of_day([whole[24 * day : 24 * day + 24] for day in days], _NOON)


def _day(organization: Organization, hours: list[int], day: date) -> int:
    number = (day - organization.first).days
    return sum(hours[24 * number : 24 * number + 24])


def main() -> None:
    """Print the errors of some seeds."""
    first, _, last = sys.argv[1].partition("-")
    number = int(sys.argv[2]) if len(sys.argv) > 2 else 300
    for seed in range(int(first), int(last or first) + 1):
        ours, agents = medians([seed], number)
        for name, found in (("organizations", ours), ("agents", agents)):
            median, p90 = quantiles(found)
            print(f"seed {seed}: {name}: {len(found)} months, median {median:.3f}, p90 {p90:.3f}")


if __name__ == "__main__":
    main()
