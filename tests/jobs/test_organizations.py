"""The task that keeps the list of all organizations: what it sums up, and when."""

import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from operator import attrgetter

import pytest
import sqlalchemy as sa

from app.intake.events import Event
from app.intake.store import store_events
from app.reports.organizations import PERIODS, OrganizationsWanted, organizations_page
from app.storage.tables import (
    daily_agent_issuance,
    daily_issuance,
    dow_hour_total,
    organization_summary_state,
    rollup_state,
)
from jobs.metrics import OrganizationsCollector
from jobs.organizations import summarize_organizations
from jobs.scheduler import organizations_tick
from tests.support.findings import stored
from tests.support.organizations import counted, make_list, rows
from tests.support.settings import NOW

DAY = timedelta(days=1)
THROUGH = date(2026, 4, 14)
# By code point, so that the order of the ids is a different one in most languages.
TENANTS = ["Z", "a", "b%_", "\u00e9", "\U0001f600", "\U0001f600x"]


def state(database):
    with database.reading() as connection:
        return connection.execute(sa.select(organization_summary_state)).one_or_none()


def change(database, statement):
    database.write(lambda connection: connection.execute(statement))


def page(database, period="7d", limit=1000):
    with database.reading_organizations() as connection:
        return organizations_page(connection, OrganizationsWanted(period), limit=limit)


def random_events(dice):
    """Events of some organizations over 200 days up to tomorrow; each has one last active day."""
    events = []
    for tenant in TENANTS[:-1]:
        for number in range(dice.choice([5, 40, 120])):
            day = THROUGH - dice.randrange(-1, 200) * DAY
            at = datetime(day.year, day.month, day.day, dice.randrange(24), 30, tzinfo=UTC)
            events.append(Event(tenant, f"e{number}", f"agent-{dice.randrange(9)}", at))
    # The days at the edges of the periods, each with a number of its own.
    for number, ago in enumerate([-1, 0, 6, 7, 13, 14, 27, 28, 55, 56, 90, 91, 181, 182], 1):
        day = datetime(2026, 4, 14, 23, 59, tzinfo=UTC) - ago * DAY
        events += [
            Event(TENANTS[-1], f"{ago}-{each}", f"agent-{ago % 5}", day) for each in range(number)
        ]
    return events


def expected(events, days):
    """What the list says of each organization, counted from the events."""
    first, before = THROUGH - (days - 1) * DAY, THROUGH - (2 * days - 1) * DAY
    of_all = Counter(e.tenant_id for e in events if first <= e.issued_at.date() <= THROUGH)
    found = {}
    for tenant in TENANTS:
        own = [(e.issued_at.date(), e.agent_id) for e in events if e.tenant_id == tenant]
        now = Counter(day for day, _ in own if first <= day <= THROUGH)
        earlier = sum(before <= day < first for day, _ in own)
        total = now.total()
        step = 7 if days == 91 else 1
        line = [
            sum(now[first + (at + each) * DAY] for each in range(step))
            for at in range(0, days, step)
        ]
        found[tenant] = (
            total,
            earlier,
            (total - earlier) / earlier if earlier else None,
            total / of_all.total(),
            len({agent for day, agent in own if first <= day <= THROUGH}),
            max(day for day, _ in own),
            line,
        )
    return found


@pytest.mark.quick
def test_the_list_equals_a_count_of_the_events(database, roll_up):
    """Each number of each period, for days at the edges of the periods, in small batches."""
    events = random_events(random.Random(7))
    store_events(database, events)
    roll_up()
    done = make_list(database, batch=2)
    assert (done.outcome, done.organizations) == ("done", len(TENANTS))
    values = attrgetter(
        *("token_count", "previous_token_count", "change", "share"),
        *("active_agents", "last_day", "sparkline"),
    )
    for period, days in PERIODS.items():
        found = page(database, period)
        assert {one.tenant_id: values(one) for one in found.organizations} == expected(events, days)
        assert found.totals.organizations == len(TENANTS)
        assert found.totals.token_count == sum(one.token_count for one in found.organizations)
        assert (found.days.first, found.days.last) == (THROUGH - (days - 1) * DAY, THROUGH)
        assert found.days.counted_at == NOW


def test_a_later_pass_changes_what_has_changed(database, issue, roll_up):
    """Late events, findings, a new day and a new organization; other rows stay as they are."""
    issue("2026-04-10T09:00", 3, tenant="late")
    issue("2026-04-10T09:00", 5, tenant="same")
    roll_up()
    make_list(database)
    before = rows(database)
    issue("2026-04-14T09:00", 2, tenant="late", agent="agent-2")
    issue("2026-04-15T09:00", 1, tenant="new")
    stored(database, {}, {}, tenant="late")
    roll_up()
    make_list(database)
    after = rows(database)
    assert after["same"] == before["same"]
    late = after["late"]
    assert (late.tokens_7d, late.agents_7d, late.open_findings) == (5, 2, 2)
    assert (late.days, late.last_day) in [("0:2,4:3", THROUGH), ("4:3,0:2", THROUGH)]
    assert (after["new"].tokens_13w, after["new"].last_day) == (0, date(2026, 4, 15))
    make_list(database, NOW + 7 * DAY)
    assert (rows(database)["late"].tokens_7d, rows(database)["late"].before_7d) == (0, 5)
    assert rows(database)["new"].tokens_7d == 1


def test_an_organization_that_is_gone_leaves_the_list(database, issue, roll_up):
    for tenant in ("a", "b", "c"):
        issue("2026-04-10T09:00", tenant=tenant)
    roll_up()
    make_list(database)
    for table in (daily_issuance, dow_hour_total):
        change(database, sa.delete(table).where(table.c.tenant_id != "b"))
    make_list(database, batch=1)
    assert rows(database).keys() == {"b"}
    for table in (daily_issuance, dow_hour_total):
        change(database, sa.delete(table))
    make_list(database)
    assert page(database).totals.organizations == 0


def test_a_pass_goes_on_where_it_was(database, issue, roll_up):
    """A stopped pass is continued, even by another process, and is the list only at its end."""
    for tenant in ("a", "b", "c", "d", "e"):
        issue("2026-04-10T09:00", tenant=tenant)
    roll_up()
    counted(database)
    stop = threading.Event()
    stop.set()
    assert summarize_organizations(database, batch=2, stop=stop).organizations == 0
    for outcome, listed in (("stopped", 2), ("stopped", 4), ("done", 5)):
        assert summarize_organizations(database, batch=2, tick_seconds=0).outcome == outcome
        assert len(rows(database)) == listed
        assert (state(database).last_finished is None) == (outcome == "stopped")
    assert rows(database).keys() == set("abcde")
    assert (state(database).after, state(database).counted_at) == (None, NOW)
    assert summarize_organizations(database) is None


@pytest.mark.parametrize(
    ("values", "due"),
    [
        pytest.param({}, False, id="just now"),
        pytest.param({"began_at": datetime.now(UTC) - timedelta(minutes=61)}, True, id="an hour"),
        pytest.param({"began_at": datetime.now(UTC) + DAY}, True, id="the clock was set back"),
        pytest.param({"began_at": None}, True, id="never"),
        pytest.param({"after": "m"}, True, id="under way"),
        pytest.param({"counting": NOW - DAY}, True, id="another day is whole"),
    ],
)
def test_a_pass_is_due(database, values, due):
    """Every hour, after midnight, and while one is under way."""
    make_list(database)
    if values:
        change(database, sa.update(organization_summary_state).values(values))
    assert (summarize_organizations(database) is not None) is due


def test_nothing_is_due_before_the_first_count(database):
    assert summarize_organizations(database) is None
    change(database, sa.delete(rollup_state))
    with pytest.raises(Exception, match="rollup_state has no row"):
        summarize_organizations(database)


def test_batches_of_several_processes_take_turns(database, issue, roll_up):
    """Each organization is summed up once, whichever process does it."""
    for number in range(12):
        issue("2026-04-10T09:00", tenant=f"org-{number:02}")
    roll_up()
    counted(database)
    with ThreadPoolExecutor(3) as threads:
        done = list(threads.map(lambda _: summarize_organizations(database, batch=1), range(3)))
    while (more := summarize_organizations(database, batch=1)) is not None:
        done.append(more)
    assert sum(one.organizations for one in done if one) == 12
    assert len(rows(database)) == 12


def test_agents_are_unknown_where_their_days_are(database, issue, roll_up):
    """Not kept, or not filled yet: null rather than a number that is too low."""
    issue("2026-04-10T09:00", 2, agent="a")
    issue("2026-02-10T09:00", 2, agent="b")
    roll_up()
    make_list(database, agent_days=10)
    (row,) = rows(database).values()
    assert (row.agents_7d, row.agents_28d, row.agents_13w) == (1, None, None)
    assert page(database, "13w").totals.active_agents is None
    change(database, sa.update(rollup_state).values(backfill_end=10**6))
    make_list(database, NOW + DAY)
    (row,) = rows(database).values()
    assert (row.agents_7d, row.tokens_13w) == (None, 4)
    change(database, sa.update(rollup_state).values(backfill_end=0))
    make_list(database, NOW + DAY)
    (row,) = rows(database).values()
    assert (row.agents_7d, row.agents_28d, row.agents_13w) == (1, 1, 2)


def test_agents_are_not_counted_again_without_need(database, issue, roll_up, monkeypatch):
    """An hour later, the days of agents are read for those with late events alone."""
    issue("2026-04-10T09:00", tenant="a")
    issue("2026-04-10T09:00", tenant="b")
    roll_up()
    make_list(database)
    change(database, sa.delete(daily_agent_issuance))
    issue("2026-04-11T09:00", tenant="b", agent="late")
    issue("2026-04-15T09:00", tenant="a", agent="today")
    roll_up()
    make_list(database)
    assert (rows(database)["a"].agents_7d, rows(database)["b"].agents_7d) == (1, 1)
    change(database, sa.delete(daily_agent_issuance))
    make_list(database)
    assert (rows(database)["a"].agents_7d, rows(database)["b"].agents_7d) == (1, 1)


def test_the_tick_logs_and_measures(database, issue, roll_up, settings, caplog):
    """A pass is one line and has an age; a failure is logged, and the next tick goes on."""
    caplog.set_level("INFO", "jobs")
    (age,) = OrganizationsCollector(database).collect()
    assert age.samples[0].value == 0
    issue("2026-04-10T09:00")
    roll_up()
    stop = threading.Event()
    rename = "ALTER TABLE {} RENAME TO {}"
    change(database, sa.text(rename.format("dow_hour_total", "gone")))
    organizations_tick(database, settings, stop)
    change(database, sa.text(rename.format("gone", "dow_hour_total")))
    organizations_tick(database, settings, stop)
    organizations_tick(database, settings, stop)  # nothing is due
    lines = [(record.message, record.fields["outcome"]) for record in caplog.records]
    assert lines == [("organizations", "failed"), ("organizations", "done")]
    (age,) = OrganizationsCollector(database).collect()
    assert age.samples[0].value == pytest.approx(datetime.now(UTC).timestamp(), abs=60)
