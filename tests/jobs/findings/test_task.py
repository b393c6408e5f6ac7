"""The task of findings: what is judged when, by one process at a time, whatever dies."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Event as Signal
from types import SimpleNamespace

import pytest
import sqlalchemy as sa

from app.alerts.webhooks import EndpointBody, Rules, create_endpoint
from app.storage import outbox
from app.storage.tables import detection_state, rollup_state, usual, webhook_messages
from jobs.counting.run import NOT_ADDING
from jobs.findings import claim as claims
from jobs.findings import judging, task
from jobs.findings.claim import LostClaimError, claim
from jobs.findings.task import judge_findings
from tests.jobs.findings.conftest import DAY, FIRST, at
from tests.support.settings import TENANT


def kinds(life):
    return sorted((row["kind"], row["status"]) for row in life.findings())


def set_state(life, **values):
    update = sa.update(detection_state).values(values)
    life.database.write(lambda connection: connection.execute(update))


def state(life):
    with life.database.reading() as connection:
        return connection.execute(sa.select(detection_state)).one()


def counted_upto(life):
    with life.database.reading() as connection:
        return connection.scalar(sa.select(rollup_state.c.counted_upto))


def progress(life, tenant=TENANT):
    with life.database.reading() as connection:
        return connection.execute(sa.select(usual).where(usual.c.tenant_id == tenant)).one()


def test_a_spike_is_found_in_the_hour_that_shows_it(life, weeks):
    """A spike is open while its day goes on, and is resolved after a usual day."""
    today = weeks(5)
    life.tick(at(today))
    assert kinds(life) == []
    life.work(today)
    life.issue(at(today, 9), 900)
    done = life.tick(at(today, 10) + timedelta(minutes=2))
    assert done.found["spike"] + done.found["retry_loop"] == 1
    (found,) = life.findings()
    assert (found["status"], found["begins_at"].date()) == ("open", today)
    life.work(today + DAY)
    life.tick(at(today + 2 * DAY, 3))
    assert [row["status"] for row in life.findings()] == ["resolved"]


def test_each_change_is_told_in_its_transaction(life, weeks, monkeypatch):
    """A finding that is opened, updated and resolved."""
    # The days of this test are past, and the clock of the database is not set.
    monkeypatch.setattr(outbox, "LATE", timedelta(days=36_500))
    today = weeks(5)
    body = EndpointBody("https://example.com/", kinds=["spike", "retry_loop"], cooldown_minutes=0)
    create_endpoint(life.database, TENANT, body, at(today), rules=Rules(), by="u")
    life.tick(at(today))
    life.work(today)
    life.issue(at(today, 9), 900)
    life.tick(at(today, 10) + timedelta(minutes=2))
    life.issue(at(today, 10), 100)
    life.tick(at(today, 11) + timedelta(minutes=2))
    life.work(today + DAY)
    life.tick(at(today + 2 * DAY, 3))
    (found,) = life.findings()
    message = webhook_messages.c
    with life.database.reading() as connection:
        rows = connection.execute(sa.select(webhook_messages).order_by(message.version)).all()
    assert rows[0].kind == "finding.opened"
    assert rows[-1].kind == "finding.resolved"
    assert {row.kind for row in rows[1:-1]} == {"finding.updated"}
    assert [row.version for row in rows] == [*range(1, found["version"] + 1)]
    assert {row.finding_id for row in rows} == {found["id"]}
    assert (rows[-1].content, rows[-1].resolution) == (found["content"], "ended")


def test_a_tick_notes_a_part_of_a_long_history_and_the_next_goes_on(life, weeks, monkeypatch):
    """Otherwise a history that takes longer to note than a tick lasts would never be judged."""
    monkeypatch.setattr(task, "WINDOW_IDS", 1_000)
    monkeypatch.setattr(task, "NOTING_SECONDS", 0)
    today = weeks(5)
    life.work(today)
    life.issue(at(today, 9), 900)
    life.run(at(today, 10) + timedelta(minutes=2))
    assert life.judge().organizations == 1
    parts = [state(life).noted_upto]
    while parts[-1] < counted_upto(life):
        life.judge()
        parts.append(state(life).noted_upto)
    assert parts == [*range(1_000, counted_upto(life), 1_000), counted_upto(life)]
    assert {kind for kind, _ in kinds(life)} & {"spike", "retry_loop"}
    # Delays are measured each hour, of the events that are noted by then.
    assert state(life).measured_upto == 1_000
    set_state(life, measured_at=None)
    life.issue(at(today, 10), 5)
    life.tick(at(today, 11) + timedelta(minutes=2))
    assert state(life).measured_upto == counted_upto(life)


def test_judging_lets_a_run_of_its_process_go_first_for_half_of_a_tick(life, weeks, monkeypatch):
    """While a window is added, nothing is judged; but a backlog does not stop judging for good."""
    today = weeks(5)
    life.work(today)
    life.run(at(today + DAY, 3))
    begun = Signal()
    monkeypatch.setattr(task, "catch_up", lambda *a, **k: begun.set() or judging.catch_up(*a, **k))
    monkeypatch.setattr(task, "PAUSE_SECONDS", 0.01)
    NOT_ADDING.clear()
    try:
        with ThreadPoolExecutor() as pool:
            tick = pool.submit(life.judge)
            assert not begun.wait(0.5)
            NOT_ADDING.set()
            assert tick.result(60).organizations == 1
        NOT_ADDING.clear()
        life.work(today + DAY)
        life.run(at(today + 2 * DAY, 3))
        NOT_ADDING.clear()
        ended = judge_findings(life.database, life.settings, tick_seconds=0.5)
        assert ended.organizations == 1
    finally:
        NOT_ADDING.set()


@pytest.mark.quick
def test_a_silence_is_found_without_any_new_event(life, weeks):
    """An organization that is due is judged, although nothing of it arrives."""
    today = weeks(9)
    life.tick(at(today, 8))
    done = life.tick(at(today, 14) + timedelta(minutes=5))
    assert done.found["silence"] == 1
    assert kinds(life) == [("silence", "open")]


def test_an_hour_is_judged_after_the_usual_delivery_delay(life, weeks):
    """An organization whose events arrive a day late is not silent meanwhile."""
    today = weeks(9)
    life.tick(at(today, 8))
    delayed = sa.update(usual).values(delay_seconds=24 * 3600, due_at=at(today, 8))
    life.database.write(lambda connection: connection.execute(delayed))
    life.tick(at(today, 18))
    assert kinds(life) == []


def test_the_delay_is_the_99th_percentile_of_arrival(life):
    """One event in fifty that arrives late counts, one in two hundred does not."""
    day = at(FIRST)
    for tenant, late in (("few", 1), ("some", 4)):
        life.issue(day, 200 - late, tenant=tenant)
        life.issue(day, late, tenant=tenant, delay=timedelta(hours=5))
    life.issue(day, 10, tenant="imported", delay=timedelta(days=90))
    life.tick(at(FIRST) + DAY)
    delays = {
        tenant: progress(life, tenant).delay_seconds for tenant in ("few", "some", "imported")
    }
    assert delays == {"few": 60, "some": 6 * 3600, "imported": 48 * 3600}


@pytest.mark.parametrize("delays", ["{", '{"2026-01-05": [1]}', '{"2026-01-05": "x"}'])
def test_delays_that_cannot_be_read_are_measured_anew(life, delays):
    life.issue(at(FIRST), 9)
    life.tick(at(FIRST, 2))
    spoilt = sa.update(usual).values(delays=delays)
    life.database.write(lambda connection: connection.execute(spoilt))
    set_state(life, measured_at=None)
    life.issue(at(FIRST, 2), 9)
    life.tick(at(FIRST, 4))
    assert state(life).measured_upto == counted_upto(life)
    assert progress(life).delay_seconds == 60


def test_a_tick_without_news_writes_nothing(life, weeks):
    today = weeks(4)
    life.tick(at(today, 1))
    with life.database.reading() as connection:
        before = connection.execute(sa.select(detection_state)).one()
    assert life.judge().organizations == 0
    with life.database.reading() as connection:
        assert connection.execute(sa.select(detection_state)).one() == before


@pytest.mark.quick
def test_one_process_judges_at_a_time(life, weeks):
    life.tick(at(weeks(4), 1))
    first = claim(life.database)
    assert claim(life.database) is None
    with life.database.reading() as connection:
        now = connection.scalar(sa.select(detection_state.c.claimed_until))
    set_state(life, claimed_until=now - timedelta(minutes=2))  # the process has died
    assert claim(life.database).turn == first.turn + 1
    with pytest.raises(LostClaimError):
        life.database.write(first.renew)


def test_a_slow_judge_stores_what_it_has(life, weeks, monkeypatch):
    """Organizations that take long to judge are stored before the others, in the same tick."""
    for tenant in ("org-b", "org-c"):
        weeks(3, tenant=tenant)
    today = weeks(3)
    stored = task.store
    tenants = []

    def noted(database, claim, found, judged, now):
        tenants.append([one.tenant_id for one in judged])
        stored(database, claim, found, judged, now)

    monkeypatch.setattr(task, "store", noted)
    monkeypatch.setattr(task, "SLICE_SECONDS", -1.0)
    life.tick(at(today, 1))
    assert [one for one in tenants if one] == [["org-a"], ["org-b"], ["org-c"]]
    assert all(progress(life, tenant).judged_through == today - DAY for [tenant] in tenants[:3])


def test_every_organization_has_its_turn_though_more_change_than_a_tick_can_judge(
    life, monkeypatch
):
    """Six fit in a tick: three of those that changed, and three of those that are due longest."""
    tenants = [f"org-{number}" for number in range(10)]
    seconds, stored, turns = [0.0], task.store, []

    def slow_store(database, claim, found, judged, now):
        if judged:
            seconds[0] += 11
            turns.extend(one.tenant_id for one in judged)
        stored(database, claim, found, judged, now)

    for tenant in tenants:
        life.work(FIRST, tenant=tenant)
    life.tick(at(FIRST + DAY, 1))
    monkeypatch.setattr(task, "time", SimpleNamespace(monotonic=lambda: seconds[0]))
    monkeypatch.setattr(task, "BATCH", 1)
    monkeypatch.setattr(task, "store", slow_store)
    for number in range(1, 5):
        for tenant in tenants:
            life.issue(at(FIRST + DAY, 1), tenant=tenant)
        done = life.tick(at(FIRST + DAY, 1) + number * timedelta(minutes=1))
        assert (done.outcome, done.organizations) == ("stopped", 6)
        assert state(life).noted_upto == counted_upto(life)
    assert set(turns[:18]) == set(tenants)
    life.issue(at(FIRST + DAY, 1))
    assert life.tick(at(FIRST + DAY, 1) + timedelta(minutes=5)).outcome == "done"


def test_a_claim_is_kept_while_days_are_judged(life, weeks, monkeypatch):
    """A judge that meets another claim in the middle of an organization stores nothing."""
    today = weeks(4)
    life.run(at(today, 1))
    monkeypatch.setattr(claims, "KEEP_SECONDS", 0.0)
    judged, days = judging.judge_day, []

    def one_day(series, *arguments):
        days.append(series.last)
        if len(days) == 5:
            set_state(life, turn=99)
        return judged(series, *arguments)

    monkeypatch.setattr(judging, "judge_day", one_day)
    assert life.judge().outcome == "taken"
    assert len(days) == 5


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_killed_judge_loses_and_doubles_nothing(life, weeks, monkeypatch, when):
    """What a tick did not store, the next one stores; what it stored stays as it is."""
    today = weeks(5)
    life.tick(at(today))
    life.issue(at(today, 9), 900)
    stored = task.store

    def dies(*arguments):
        if when == "after":
            stored(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(task, "store", dies)
    with pytest.raises(KeyboardInterrupt):
        life.tick(at(today, 10) + timedelta(minutes=2))
    monkeypatch.undo()
    assert life.judge().outcome == "taken"
    set_state(life, claimed_until=None)
    life.judge()
    assert len(life.findings()) == 1
    before = life.findings()
    set_state(life, claimed_until=None, noted_upto=0)
    life.judge()
    assert life.findings() == before


def test_a_failure_leaves_counting_alone(life, weeks, monkeypatch):
    """A run counts while detection fails, and detection then finds what it missed."""
    from jobs.scheduler import findings_tick, tick  # noqa: PLC0415 - imports the whole scheduler

    today = weeks(4)
    life.tick(at(today))
    life.issue(at(today, 1), 2)
    life.arrive()
    monkeypatch.setattr(task, "changed_days", lambda *_: 1 / 0)
    set_back = sa.update(rollup_state).values(last_tick=None)
    life.database.write(lambda connection: connection.execute(set_back))
    assert tick(life.database, life.settings, None).events == 2
    findings_tick(life.database, life.settings, None)
    monkeypatch.undo()
    life.run(at(today, 2))
    assert life.judge().organizations == 1


@pytest.mark.parametrize(
    "step", ["read", "catch_up", "judge_open_days", "changes", "budget_changes"]
)
def test_an_organization_that_cannot_be_judged_keeps_no_other_from_it(
    life, weeks, monkeypatch, caplog, step
):
    """It is named in the log, and tried again an hour later; nothing of it is lost."""
    from jobs.scheduler import findings_tick  # noqa: PLC0415 - imports the whole scheduler

    tenants = ["org-a", "org-b", "org-c"]
    for tenant in tenants:
        today = weeks(5, tenant=tenant)
    life.tick(at(today, 1))
    place = judging.Progress if step == "read" else task
    once = getattr(place, step)

    def broken(*arguments, **options):
        some = [one for each in arguments for one in (each if isinstance(each, list) else [each])]
        if any(getattr(one, "tenant_id", one) == "org-a" for one in some):
            raise ValueError("broken")
        return once(*arguments, **options)

    monkeypatch.setattr(place, step, broken)
    for tenant in tenants:
        life.work(today, tenant=tenant)
        life.issue(at(today, 9), 900, tenant=tenant)
    life.run(at(today + DAY, 3))
    findings_tick(life.database, life.settings, Signal())
    assert {row["tenant_id"] for row in life.findings()} == {"org-b", "org-c"}
    assert "while the organization 'org-a' was judged" in caplog.text
    assert state(life).claimed_until is None
    caplog.clear()
    findings_tick(life.database, life.settings, Signal())
    assert caplog.text == ""  # it is not tried again at once
    monkeypatch.undo()
    life.tick(at(today + DAY, 4))
    found = {row["tenant_id"]: row["kind"] for row in life.findings()}
    assert set(found) == set(tenants)
    assert found["org-a"] == found["org-b"]


@pytest.mark.slow
def test_many_silences_at_once_are_one_problem(life, weeks):
    """If most organizations turn silent in one hour, no finding is stored."""
    for number in range(8):
        today = weeks(5, tenant=f"org-{number}")
    life.tick(at(today, 8))
    done = life.tick(at(today, 14) + timedelta(minutes=5))
    assert done.suspect == 8
    assert life.findings() == []
