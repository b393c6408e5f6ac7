"""A recompute over history finds what living through it has found, on both databases."""

import random
from datetime import timedelta
from itertools import chain, pairwise

import pytest
import sqlalchemy as sa

from app.errors import UnavailableError
from app.storage.tables import detection_state, rollup_state
from jobs.findings import claim, recompute
from jobs.findings.recompute import recompute_findings
from tests.jobs.findings.conftest import DAY, FIRST, at
from tests.support.settings import TENANT

DAYS = 75
OTHER = "org-b"


def day_of_life(life, dice, number):
    """The events of one day, some of which are held back."""
    day = FIRST + number * DAY
    for tenant, busy in ((TENANT, 20), (OTHER, 9)):
        if tenant == OTHER and number in {40, 41}:
            continue  # silent
        for hour in range(24):
            usual = busy if 8 <= hour < 18 else 1
            usual = usual // 3 if day.isoweekday() >= 6 else usual
            for agent in ("agent-1", "agent-2", "agent-3"):
                count = max(0, round(dice.gauss(usual, usual / 8)))
                if tenant == TENANT and number == 50 and agent == "agent-2" and hour > 9:
                    count *= 40  # a retry loop
                if agent == "agent-3" and number > 30 and tenant == TENANT:
                    count = 0  # it becomes silent, and dormant
                if tenant == TENANT and number > 62 and agent == "agent-1":
                    count *= 3  # a new level
                yield tenant, at(day, hour), count, agent


def live(life, dice, *, late=(), ticks=(9, 14, 24), stumbles=lambda _day, _hour: False):
    """Let all days pass; the events of an hour in ``late`` arrive so many days later."""
    held = {}
    for number in range(DAYS):
        hours = {hour: [] for hour in range(24)}
        for tenant, when, count, agent in day_of_life(life, dice, number):
            waits = dict(late).get((number, tenant, when.hour), 0)
            arriving = held.setdefault(number + waits, []) if waits else hours[when.hour]
            arriving.append((tenant, when, count, agent))
        for tenant, when, count, agent in held.pop(number, ()):
            life.issue(when, count, agent=agent, tenant=tenant, delay=timedelta(days=3))
        for begin, end in pairwise((0, *ticks)):
            for tenant, when, count, agent in chain(*(hours[hour] for hour in range(begin, end))):
                life.issue(when, count, agent=agent, tenant=tenant)
            life.run(at(FIRST + number * DAY) + timedelta(hours=end, minutes=2))
            if not stumbles(number, end):
                life.judge()
    end = at(FIRST + DAYS * DAY, 4)
    life.run(end)
    while life.judge().organizations:
        pass
    return end


LATE = [
    ((50, TENANT, 12), 2),  # a part of the loop
    ((40 - 1, OTHER, 15), 3),
    ((20, TENANT, 10), 9),  # before the states that are kept
    ((64, TENANT, 11), 7),
]


@pytest.mark.slow
def test_a_recompute_equals_living_through_it(life):
    """Late events, failed ticks and missing ticks change nothing in the end."""
    dice = random.Random(17)
    end = live(life, dice, late=LATE, stumbles=lambda day, hour: (day * 7 + hour) % 5 == 0)
    lived = unnumbered(life.findings(until=at(end.date())))
    assert {row["kind"] for row in lived} >= {"retry_loop", "silence", "level_shift"}
    life.forget()
    done = recompute_findings(life.database, life.settings, FIRST, end.date())
    assert done.organizations == 2
    assert unnumbered(life.findings()) == lived
    # A part of the days has the findings that were opened in it.
    life.forget()
    recompute_findings(life.database, life.settings, FIRST + 45 * DAY, FIRST + 55 * DAY)
    begin, last = at(FIRST + 45 * DAY), at(FIRST + 56 * DAY)
    found = unnumbered(life.findings())
    assert found == [row for row in lived if begin < row["opened_at"] <= last]


def unnumbered(rows):
    """Findings without the number of changes that each has lived through."""
    return [{name: value for name, value in row.items() if name != "version"} for row in rows]


def test_a_recompute_changes_nothing_that_holds(life, weeks):
    """It keeps ids, marks and times of findings that still hold, and corrects the others."""
    today = weeks(5)
    life.tick(at(today))
    life.work(today)
    life.issue(at(today, 9), 900)
    for hour in (10, 26):
        life.tick(at(today) + timedelta(hours=hour, minutes=2))
    before = life.findings()
    assert len(before) == 1
    done = recompute_findings(life.database, life.settings, today - DAY, today)
    assert (done.opened, done.changed, done.corrected) == (0, 0, 0)
    assert life.findings() == before


def test_schedulers_go_on_with_a_recompute(life):
    """What a recompute finds in the time before detection began is resolved when it ends."""

    def work(days, first, second):
        for day in days:
            life.issue(at(FIRST + day * DAY, 9), first, agent="agent-1")
            life.issue(at(FIRST + day * DAY, 9), second, agent="agent-2")

    work(range(27), 18, 2)  # January: 90 %
    work(range(27, 55), 15, 5)  # February: 75 %, which neither opens nor ends a concentration
    march = FIRST + 55 * DAY
    life.run(at(march))
    with life.database.reading() as connection:
        counted = connection.scalar(sa.select(rollup_state.c.counted_upto))
    upgraded = sa.insert(detection_state).values(id=1, noted_upto=counted, measured_upto=counted)
    life.database.write(lambda connection: connection.execute(upgraded))
    work([55], 10, 10)
    life.tick(at(march + DAY, 3))
    assert life.findings() == []
    recompute_findings(life.database, life.settings, FIRST, march)
    assert [(row["kind"], row["status"]) for row in life.findings()] == [("concentration", "open")]
    work(range(56, 63), 10, 10)
    life.tick(at(FIRST + 63 * DAY, 3))
    (found,) = life.findings()
    assert (found["status"], found["resolution"]) == ("resolved", "ended")


def test_an_organization_that_fails_keeps_no_other_from_a_recompute(life, weeks, monkeypatch):
    """The failure is raised at the end, with the organization's name."""
    for tenant in ("org-a", "org-b"):
        today = weeks(5, tenant=tenant)
        life.issue(at(today - DAY, 9), 900, tenant=tenant)
    life.tick(at(today, 3))
    life.forget()
    judged = recompute.judged_days

    def broken(counts, tenant, *arguments, **options):
        if tenant == "org-a":
            raise ValueError("broken")
        return judged(counts, tenant, *arguments, **options)

    monkeypatch.setattr(recompute, "judged_days", broken)
    with pytest.raises(ValueError, match="broken") as failure:
        recompute_findings(life.database, life.settings, today - DAY, today)
    assert failure.value.__notes__ == ["while the organization 'org-a' was judged"]
    assert {row["tenant_id"] for row in life.findings()} == {"org-b"}
    monkeypatch.undo()
    # The claim is free again.
    assert recompute_findings(life.database, life.settings, today - DAY, today).opened == 1


def test_a_recompute_that_lost_its_claim_says_so(life, weeks, monkeypatch):
    today = weeks(4)
    life.run(at(today, 1))
    monkeypatch.setattr(claim, "KEEP_SECONDS", 0.0)
    taken = sa.update(detection_state).values(turn=detection_state.c.turn + 1)
    judged = recompute.judged_days

    def loses(*arguments, **more):
        life.database.write(lambda connection: connection.execute(taken))
        return judged(*arguments, **more)

    monkeypatch.setattr(recompute, "judged_days", loses)
    with pytest.raises(UnavailableError, match="run this again"):
        recompute_findings(life.database, life.settings, FIRST, today)
