"""Deletion of an organization: nothing of it is left, and the numbers of others stay exact."""

import itertools
import threading
from datetime import UTC, date, datetime, timedelta

import pytest
import sqlalchemy as sa

from app.errors import RefusedError
from app.storage.audit import changes
from app.storage.tables import (
    audit_log,
    detection_state,
    erasures,
    issuance_events,
    organization_summary_state,
    purged_months,
    rollup_state,
)
from jobs.erasure.organization import delete_organization, rows_of
from jobs.recount.rebuild import rebuild
from jobs.recount.resume import resume
from jobs.retention import purge_events
from tests.jobs.erasure.conftest import OF_TENANTS, OLD, contents, drift, dying

pytestmark = pytest.mark.slow

NOTHING = {table.name: [] for table in OF_TENANTS}


def delete(database, **options):
    return delete_organization(database, "t", by="tester", **({"batch_rows": 3} | options))


def state(database):
    with database.reading() as connection:
        return connection.execute(sa.select(rollup_state)).one()


def purged(database):
    with database.reading() as connection:
        return dict(connection.execute(sa.select(purged_months)).all())


@pytest.mark.quick
def test_every_table_loses_its_rows_and_no_others(filled):
    """The fixture has rows of both organizations in every table with organizations."""
    before, others = contents(filled, "t"), contents(filled, "other")
    assert all(before.values())
    assert all(others.values())
    rows = rows_of(filled, "t")
    assert sum(rows.values()) == sum(map(len, before.values()))
    done = delete(filled)
    # The note of an agent's erasure is no row of its own.
    assert (done.rows, done.finished) == (sum(rows.values()) - rows["erasures"], True)
    assert contents(filled, "t") == NOTHING
    assert contents(filled, "other") == others
    assert rows_of(filled, "t") == {}


def test_numbers_and_watermark_of_others_stay(filled, roll_up):
    """Purged months lose what they had of it; the newest counted event is one of another."""
    watermark = state(filled).counted_upto
    assert state(filled).newest_tenant_id == "other"
    roll_up()
    assert purged(filled) == {date(2026, 3, 1): 8}
    delete(filled)
    assert purged(filled) == {date(2026, 3, 1): 4}
    assert drift(filled) == []
    assert roll_up().outcome == "done"
    assert state(filled).counted_upto > watermark
    assert resume(filled).buckets == 0  # it compares the totals of purged months, too


def test_the_newest_counted_event_may_be_deleted(filled, roll_up):
    """Before and after more events, and when no event is left at all."""
    delete_organization(filled, "other", by="tester")
    assert state(filled).newest_tenant_id == "t"
    assert roll_up().outcome == "done"
    delete(filled)
    assert (state(filled).newest, state(filled).newest_tenant_id) == (None, None)
    assert roll_up().outcome == "done"


def test_a_deletion_that_dies_anywhere_goes_on(filled, issue, roll_up):
    """After each death verify is clean, runs go on, and the rest can be deleted."""
    others = contents(filled, "other")
    for statement in itertools.count(1):
        try:
            with dying(filled, statement):
                delete(filled)
        except ConnectionError:
            assert drift(filled) == []
            assert contents(filled, "other") == others
            if statement % 10 == 0:
                issue("2026-05-02T00:00:00Z", 2, tenant="t", agent=OLD)
                issue("2026-03-02T00:00:00Z", tenant="t", agent=OLD)
                assert roll_up().outcome == "done"
                others = contents(filled, "other")
                assert resume(filled).buckets == 0
        else:
            break
    assert statement > len(OF_TENANTS)
    assert contents(filled, "t") == NOTHING
    assert purged(filled) == {date(2026, 3, 1): 4}
    assert drift(filled) == []
    assert resume(filled).buckets == 0


def test_a_stop_keeps_the_rest_for_later(filled):
    stop = threading.Event()
    done = delete(filled, stop=stop, on_rows=lambda rows: stop.set() if rows > 10 else None)
    assert not done.finished
    assert delete(filled).finished
    assert contents(filled, "t") == NOTHING


def test_events_during_and_after_a_deletion(filled, issue, roll_up):
    """Those that are stored before its end are deleted; later ones begin a new organization."""
    arrivals = iter([True])

    def arrive(_rows):
        if next(arrivals, False):
            issue("2026-05-03T00:00:00Z", 5, tenant="t", event_id=None)
            roll_up()

    delete(filled, on_rows=arrive)
    assert contents(filled, "t") == NOTHING
    issue("2026-03-03T00:00:00Z", 2, tenant="t")
    assert roll_up().events == 2
    assert drift(filled) == []
    assert resume(filled).buckets == 0


def test_a_purge_meanwhile_leaves_its_events_alone(filled):
    """Otherwise purged months would have events of nobody."""
    stop = threading.Event()
    stop.set()
    delete(filled, stop=stop)
    aged = sa.update(issuance_events).values(received_at=datetime.now(UTC) - timedelta(days=400))
    filled.write(lambda connection: connection.execute(aged))
    assert purge_events(filled, retention_days=300).events == 12  # of the other organization
    assert resume(filled).buckets == 0
    assert delete(filled).finished
    assert resume(filled).buckets == 0


def test_a_rebuild_that_began_before_computes_again(filled, monkeypatch):
    """A bucket that is wrong of the organization is not repaired into an empty one."""
    spoil = sa.text(
        "UPDATE daily_issuance SET issued = issued - 1"
        " WHERE tenant_id = 't' AND date > '2026-04-01'"
    )
    filled.write(lambda connection: connection.execute(spoil))
    deleted = []

    def on_step(done, steps):
        if done == steps - 1 and not deleted:
            deleted.append(delete(filled))

    rebuild(filled, date(2026, 4, 1), date(2026, 4, 1), on_step=on_step)
    assert deleted
    assert contents(filled, "t") == NOTHING


def test_a_refusal_to_count_refuses_a_deletion(filled):
    """As a purge: the events that are counted are not known then."""
    refuse = sa.update(rollup_state).values(refusal="because")
    filled.write(lambda connection: connection.execute(refuse))
    before = contents(filled, "t")
    with pytest.raises(RefusedError, match="flask rollup resume"):
        delete(filled)
    assert contents(filled, "t") == before


def test_a_judge_that_began_before_stores_nothing(filled):
    """The turn changes, so that no finding comes back."""
    turn = sa.select(detection_state.c.turn)
    filled.write(lambda connection: connection.execute(sa.insert(detection_state).values(id=1)))
    with filled.reading() as connection:
        before = connection.scalar(turn)
    delete(filled)
    with filled.reading() as connection:
        assert connection.scalar(turn) == before + 1


@pytest.mark.parametrize(("after", "left"), [("t", None), ("other", "other"), (None, None)])
def test_the_list_of_organizations_forgets_its_place(filled, after, left):
    """If the pass under way has come to the deleted organization, it begins anew."""
    place = sa.insert(organization_summary_state).values(id=1, after=after)
    filled.write(lambda connection: connection.execute(place))
    delete(filled)
    with filled.reading() as connection:
        assert connection.scalar(sa.select(organization_summary_state.c.after)) == left


def test_a_deletion_is_recorded_once(filled):
    """The row is of no organization, so that it stays; it is found by the organization's id."""
    delete(filled)
    delete(filled)
    with filled.snapshot() as connection:
        (found,) = changes(connection, tenant_id="t")
        ours = sa.select(sa.func.count()).select_from(audit_log)
        assert connection.scalar(ours.where(audit_log.c.tenant_id == "t")) == 0
        assert connection.scalar(sa.select(sa.func.count()).select_from(erasures)) == 1
    assert (found.actor, found.action, found.subject) == ("tester", "organization.deleted", "t")
