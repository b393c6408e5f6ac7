"""The task of findings: judges the organizations that changed, and those that are due.

It begins after each run, in no transaction of it. A failure is logged, and the next tick goes on.
Nothing is lost: the events of a failed tick are noted again. An organization that cannot be judged
keeps no other from it, and is tried again.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from threading import Event as Signal
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from app.config.settings import Settings
from app.detection import HISTORY_DAYS
from app.storage.database import Database
from app.storage.failures import concerns_all
from app.storage.locks import LockedError
from app.storage.tables import detection_state, organization_settings, usual
from app.storage.types import database_now
from jobs.counting.adding import Window
from jobs.counting.run import NOT_ADDING
from jobs.counting.state import complete_from, read_state
from jobs.findings.budgets import budget_changes, changed_budgets
from jobs.findings.claim import Claim, Keeper, LostClaimError, claim
from jobs.findings.counts import open_days
from jobs.findings.history import DAY, first_days
from jobs.findings.judging import WARM_UP_DAYS, Progress, catch_up, judge_open_days
from jobs.findings.noting import changed_days, corrected_days, measure_delays, note_changes
from jobs.findings.options import options_for
from jobs.findings.storing import Change, Judged, changes, store

# The organizations that are read and stored together.
BATCH = 100
# The organizations that are made due in one transaction.
MANY = 1_000
# What was judged is stored after so many seconds, before all of them are.
SLICE_SECONDS = 10.0
# The ids of events that are read at once.
WINDOW_IDS = 1_000_000
# A tick ends after so many seconds. Its first half is for the organizations that changed. Those
# that are left become due, and of all that are due, the longest due are judged first.
TICK_SECONDS = 60.0
# A tick notes new events for so many seconds at most, so that it also judges. The next goes on.
NOTING_SECONDS = 20.0
# How often a pause looks whether the tick is over.
PAUSE_SECONDS = 0.5
# If more of the active organizations than this share turn silent at once, the events are missing
# rather than the tokens. A few are believed.
MANY_SILENT = 0.3
FEW_SILENT = 5
# An organization that could not be judged is tried again after this time, or when it changes.
TRIED_AGAIN = timedelta(hours=1)
# By how much the clocks of hosts may differ.
CLOCKS = timedelta(minutes=2)
# How often a tick notes that nothing is due.
RECENT = timedelta(minutes=1)


@dataclass
class Pass:
    """What one tick has done.

    Attributes:
        outcome: ``done``, ``stopped`` (by a shutdown, or since more is due than fits in a tick),
            ``taken`` (another process judges) or ``waiting`` (tables are not filled yet).
        organizations: how many judgements of an organization were made.
        found: how many findings were opened, by kind.
        suspect: how many silences were not stored, because too many began at once.
    """

    outcome: str = "done"
    organizations: int = 0
    found: Counter[str] = field(default_factory=Counter)
    suspect: int = 0
    seconds: float = 0.0


def judge_findings(
    database: Database,
    settings: Settings,
    stop: Signal | None = None,
    *,
    tick_seconds: float = TICK_SECONDS,
) -> Pass:
    """Judge the organizations that changed since the last tick, then those that are due.

    Raises:
        RefusedError: the state row is missing.
        Exception: the first failure with one organization, after all others were judged.
    """
    began = time.monotonic()
    with database.reading() as connection:
        state = read_state(connection)
    if state.last_finished is None or state.backfilled < state.backfill_end:
        return Pass("waiting")
    if _is_idle(database, state):
        return Pass()
    claimed = claim(database)
    if claimed is None:
        return Pass("taken")
    halves = began + tick_seconds / 2, began + tick_seconds
    judge = _Judge(database, settings, claimed, state, stop or Signal(), halves)
    try:
        judge.run()
    except LostClaimError:
        judge.done.outcome = "taken"
    except Exception:
        # The next tick need not wait until the claim ends.
        with suppress(LostClaimError, LockedError, SQLAlchemyError):
            claimed.release(database)
        raise
    judge.done.seconds = time.monotonic() - began
    return judge.done


def _is_idle(database: Database, state: sa.Row[Any]) -> bool:
    """Whether nothing is new or due, and that was noted a moment ago."""
    noted, now = detection_state.c, database_now().label("now")
    due = sa.select(usual.c.tenant_id).where(usual.c.due_at <= state.last_finished).limit(1)
    with database.reading() as connection:
        row = connection.execute(
            sa.select(noted.noted_upto, noted.noted_correction, noted.last_finished, now)
        ).one_or_none()
        if row is None or row.last_finished is None or connection.execute(due).first():
            return False
    return bool(
        row.noted_upto == state.counted_upto
        and row.noted_correction == state.corrections
        and timedelta(0) <= row.now - row.last_finished < RECENT
    )


class _Judge:
    """One tick in progress."""

    def __init__(  # noqa: PLR0913, PLR0917 - what a tick begins with
        self,
        database: Database,
        settings: Settings,
        claimed: Claim,
        state: sa.Row[Any],
        stop: Signal,
        halves: tuple[float, float],
    ) -> None:
        self.done = Pass()
        self._database = database
        self._settings = settings
        self._claim = claimed
        self._keeper = Keeper(database, claimed)
        self._state = state
        # Up to which id events are noted. After a restore it may be less than before.
        self._noted_upto = min(claimed.noted_upto, state.counted_upto)
        self._stop = stop
        self._give_up, self._end = halves
        # New silences of organizations, and how many organizations could be silent.
        self._silent: list[Change] = []
        self._active = 0
        self._renewed: set[str] = set()
        self._failure: Exception | None = None

    @property
    def _counted_at(self) -> datetime:
        counted_at: datetime = self._state.last_finished
        return counted_at

    def run(self) -> None:
        """Judge, and note in the state how far events were noted."""
        changed = self._changed()
        if self._is_hour_over():
            self._measure()
        left = self._judge(changed)
        if not self._stop.is_set():
            self._make_due(left)
            # Those that changed are judged or due, so their events need not be noted again.
            self._note(noted_upto=self._noted_upto, noted_correction=self._state.corrections)
        self._give_up = self._end
        while not self._is_over() and (due := self._due()):
            self._judge(due)
        self._store_silences()
        finished = {}
        if self._is_over():
            self.done.outcome = "stopped"
        else:
            finished = {"last_finished": self._claim.now}
        self._claim.release(self._database, **finished)
        if self._failure is not None:
            raise self._failure

    def _is_over(self) -> bool:
        """Whether this half of the tick is over."""
        return self._stop.is_set() or time.monotonic() > self._give_up

    def _keep(self) -> None:
        """Keep the claim, and pause while this process adds a window to the summary tables."""
        self._keeper.keep()
        while not self._is_over() and not NOT_ADDING.wait(PAUSE_SECONDS):
            self._keeper.keep()

    def _note(self, **values: object) -> None:
        self._database.write(lambda connection: self._claim.note(connection, **values))

    def _changed(self) -> list[str]:
        """The organizations with new events or corrections, noted for those judged before."""
        changed: dict[str, date] = {}
        enough = time.monotonic() + NOTING_SECONDS
        for window in _windows(self._noted_upto, self._state.counted_upto):
            self._keep()
            with self._database.reading() as connection:
                _merge(changed, changed_days(connection, window))
            self._noted_upto = window.upto
            if self._is_over() or time.monotonic() > enough:
                break
        if self._state.corrections > self._claim.noted_correction:
            with self._database.reading() as connection:
                _merge(changed, corrected_days(connection, self._claim.noted_correction))
        note_changes(self._database, self._claim, changed, self._counted_at)
        self._renewed = self._with_new_settings()
        return sorted(changed.keys() | self._renewed | self._with_new_budgets())

    def _with_new_settings(self) -> set[str]:
        """The organizations whose settings have changed, so that other days are days off."""
        last = self._claim.last_finished
        if last is None:
            return set()
        column = organization_settings.c
        with self._database.reading() as connection:
            # The time is of another host's clock. To judge them twice does no harm.
            recent = sa.select(column.tenant_id).where(column.changed_at > last - CLOCKS)
            return set(connection.scalars(recent))

    def _with_new_budgets(self) -> set[str]:
        last = self._claim.last_finished
        if last is None:
            return set()
        with self._database.reading() as connection:
            return changed_budgets(connection, last - CLOCKS)  # as above

    def _is_hour_over(self) -> bool:
        """Whether an hour has begun since delays were last measured."""
        last = self._claim.measured_at
        return last is None or _hour_of(last) != _hour_of(self._claim.now)

    def _measure(self) -> None:
        """Measure delays of noted events: only organizations of these have a row for them."""
        for window in _windows(self._claim.measured_upto, self._noted_upto):
            self._keep()
            if self._is_over():
                return
            measure_delays(self._database, self._claim, window, self._claim.now)
            # Delays are added up, so each window is noted: it must not be added again.
            self._note(measured_upto=window.upto)
        self._note(measured_at=self._claim.now)

    def _make_due(self, tenants: Sequence[str]) -> None:
        """Make organizations due now, which are not due already."""
        column, now = usual.c, self._counted_at
        for start in range(0, len(tenants), MANY):
            not_due = column.tenant_id.in_(tenants[start : start + MANY]), column.due_at > now
            update = sa.update(usual).where(*not_due).values(due_at=now)

            def work(connection: Connection, update: sa.Update = update) -> None:
                self._claim.renew(connection)
                connection.execute(update)

            self._database.write(work)

    def _due(self) -> list[str]:
        column = usual.c
        statement = (
            sa.select(column.tenant_id)
            .where(column.due_at <= self._counted_at)
            .order_by(column.due_at, column.tenant_id)
            .limit(BATCH)
        )
        with self._database.reading() as connection:
            return list(connection.scalars(statement))

    def _judge(self, tenants: list[str]) -> list[str]:
        """Judge organizations, and store what is found, at least every SLICE_SECONDS.

        Returns those that are left when this half of the tick is over.
        """
        for start in range(0, len(tenants), BATCH):
            if self._is_over():
                return tenants[start:]
            rest = self._judge_batch(tenants[start : start + BATCH])
            if rest:
                return rest + tenants[start + BATCH :]
        return []

    def _judge_batch(self, rest: list[str]) -> list[str]:
        """Judge organizations; if some fail together, fewer at once, until one fails alone."""
        size = BATCH
        while rest:
            self._keep()
            some, active = rest[:size], self._active
            try:
                left = self._judge_some(some)
            except Exception as error:
                if isinstance(error, LostClaimError) or concerns_all(error):
                    raise
                self._active = active
                if len(some) > 1:
                    size = len(some) // 2
                    continue
                self._put_off(some[0], error)
                left, size = [], BATCH
            rest = left + rest[len(some) :]
            if self._is_over():
                break
        return rest

    def _put_off(self, tenant_id: str, error: Exception) -> None:
        """Keep the failure with one organization for the end of the tick, and go on."""
        error.add_note(f"while the organization {tenant_id!r} was judged")
        self._failure = self._failure or error
        # What is usual is made anew then, because its settings may have changed.
        later = {"due_at": self._counted_at + TRIED_AGAIN, "usuals": "{}"}
        self._store([], [Judged(tenant_id, progress=later)])

    def _judge_some(self, tenants: list[str]) -> list[str]:
        """Judge organizations, and store what is found. Returns those that are left."""
        judged, rest = self._judged(tenants)
        tenants_judged = [one.tenant_id for one in judged]
        with self._database.reading() as connection:
            found = changes(connection, judged)
            found += budget_changes(connection, tenants_judged, self._counted_at)
        self._store([change for change in found if not change.may_wait], judged)
        self._silent += [change for change in found if change.may_wait]
        self._renewed.difference_update(tenants_judged)
        self.done.organizations += len(judged)
        return rest

    def _judged(self, tenants: Sequence[str]) -> tuple[list[Judged], list[str]]:
        """Judge some organizations. Returns those that took too long, too, so they are left."""
        with self._database.reading() as connection:
            rows = connection.execute(sa.select(usual).where(usual.c.tenant_id.in_(tenants))).all()
        found: dict[str, Judged] = {}
        current: list[Progress] = []
        behind = {}
        for row in rows:
            progress = Progress.read(row)
            if progress.tenant_id in self._renewed:
                progress.usuals = {}
            if progress.is_behind(self._counted_at):
                behind[progress.tenant_id] = progress
            else:
                current.append(progress)
                changed = row.due_at <= self._counted_at
                found[progress.tenant_id] = Judged(progress.tenant_id)
                if changed:
                    due_at = progress.next_due(self._counted_at)
                    found[progress.tenant_id].progress = {"due_at": due_at}
        for tenant, judged in self._caught_up(behind):
            found[tenant] = judged
            progress = behind.pop(tenant)
            if not progress.is_behind(self._counted_at):
                current.append(progress)
        with self._database.reading() as connection:
            self._judge_open_days(connection, current, found)
        return list(found.values()), list(behind)

    def _caught_up(self, behind: Mapping[str, Progress]) -> Iterator[tuple[str, Judged]]:
        if not behind:
            return
        give_up = time.monotonic() + SLICE_SECONDS
        today = self._counted_at.date()
        first = min(one.changed_from or one.through for one in behind.values())
        first -= (WARM_UP_DAYS + HISTORY_DAYS) * DAY
        lifetime = self._settings.token_lifetime_seconds
        with self._database.reading() as connection:
            options = options_for(connection, list(behind), lifetime, first, today)
            began = first_days(connection, list(behind), complete_from(self._state))
        for tenant, progress in list(behind.items()):
            judged = catch_up(
                self._database,
                progress,
                options[tenant],
                self._counted_at,
                began.get(tenant),
                keep=self._keep,
            )
            judged.progress = progress.columns(self._counted_at)
            yield tenant, judged
            if time.monotonic() > give_up:
                return

    def _judge_open_days(
        self, connection: Connection, current: Sequence[Progress], found: Mapping[str, Judged]
    ) -> None:
        """Add what the days that are not whole show."""
        today = self._counted_at.date()
        open_from = min((one.through + DAY for one in current), default=today)
        tenants = [one.tenant_id for one in current]
        counts = open_days(connection, tenants, min(open_from, today), today) if current else {}
        for progress in current:
            judged = judge_open_days(
                connection, progress, counts[progress.tenant_id], self._counted_at
            )
            found[progress.tenant_id].add_open_days(judged)
            self._active += _is_active(progress, self._counted_at)

    def _store_silences(self) -> None:
        """Store the organizations' silences, unless so many begin at once that all are suspect."""
        many = len(self._silent) > max(MANY_SILENT * self._active, FEW_SILENT)
        self.done.suspect = len(self._silent) if many else 0
        if not many:
            self._store(self._silent, [])

    def _store(self, found: Sequence[Change], judged: Sequence[Judged]) -> None:
        store(self._database, self._claim, found, judged, self._claim.now)
        opened = (change.finding.kind.value for change in found if change.is_new)
        self.done.found.update(opened)


def _is_active(progress: Progress, counted_at: datetime) -> bool:
    """Whether an organization is usually issued tokens in the hour that was delivered last."""
    hour = counted_at - progress.delay - timedelta(hours=1)
    bounds = progress.usuals.get(hour.date().isoformat())
    return bounds is not None and len(bounds.hours) > hour.hour and bounds.hours[hour.hour] >= 1


def _hour_of(instant: datetime) -> datetime:
    return instant.replace(minute=0, second=0, microsecond=0)


def _windows(after: int, upto: int) -> Iterator[Window]:
    while after < upto:
        window = Window(after, min(after + WINDOW_IDS, upto))
        yield window
        after = window.upto


def _merge(days: dict[str, date], others: Mapping[str, date]) -> None:
    for tenant, day in others.items():
        days[tenant] = min(day, days.get(tenant, day))
