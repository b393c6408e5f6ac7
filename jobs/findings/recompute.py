"""Recompute: judges whole days of the past anew, from the summary tables alone.

Judging begins WARM_UP_DAYS before the first day, with an empty state. It goes on behind the last
day until each finding of these days is resolved, since a later day may resolve it. If that is the
last judged day, schedulers go on with its state. So they also resolve what began before they first
judged the organization.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from threading import Event as Signal
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection, Row

from app.config.settings import Settings
from app.detection import HISTORY_DAYS, Finding, Options, State
from app.errors import RefusedError, UnavailableError
from app.storage.database import Database
from app.storage.failures import concerns_all
from app.storage.tables import daily_issuance, usual
from jobs.counting.state import complete_from, read_state
from jobs.findings.claim import Keeper, LostClaimError, await_claim
from jobs.findings.history import DAY, first_days, history
from jobs.findings.judging import (
    WARM_UP_DAYS,
    judged_days,
    last_states,
    midnight,
    states_text,
    warm_up,
)
from jobs.findings.options import options_for
from jobs.findings.storing import Change, Judged, changes, store

# The organizations that are listed at once.
BATCH = 100
WAIT_SECONDS = 120.0


@dataclass
class Recomputed:
    """What a recompute has done: organizations judged, and findings by what happened to them."""

    organizations: int = 0
    opened: int = 0
    changed: int = 0
    corrected: int = 0


def recompute_findings(  # noqa: PLR0913 - what to judge, and how
    database: Database,
    settings: Settings,
    first: date,
    last: date,
    *,
    organization: str | None = None,
    stop: Signal | None = None,
    on_organizations: Callable[[int], None] = lambda _done: None,
) -> Recomputed:
    """Judge the whole days from ``first`` to ``last`` anew, in all organizations.

    Schedulers do not judge meanwhile; counting goes on.

    Args:
        organization: only this one.
        on_organizations: called with the number of organizations that are done.

    Raises:
        RefusedError: nothing is counted yet, or the tables are not filled.
        UnavailableError: a scheduler judges all the time, or has taken over.
        Exception: the first failure with one organization, after all others were judged.
    """
    state = _state_of_filled(database)
    claim = await_claim(database, WAIT_SECONDS)
    keeper = Keeper(database, claim)
    done = Recomputed()
    failure: Exception | None = None
    try:
        for tenant_id in _tenants(database, organization):
            if stop is not None and stop.is_set():
                break
            keeper.keep()
            try:
                judged, found = _recomputed(
                    database, settings, state, tenant_id, (first, last), keeper
                )
                store(database, claim, found, judged, claim.now)
            except Exception as error:
                if isinstance(error, LostClaimError) or concerns_all(error):
                    raise
                error.add_note(f"while the organization {tenant_id!r} was judged")
                failure = failure or error
                continue
            _count(done, found)
            on_organizations(done.organizations)
        claim.release(database)
    except LostClaimError:
        raise UnavailableError("a scheduler has taken over judging; run this again") from None
    if failure is not None:
        raise failure
    return done


def _state_of_filled(database: Database) -> Row[Any]:
    with database.reading() as connection:
        state = read_state(connection)
    if state.last_finished is None:
        raise RefusedError("nothing is counted yet: run `flask rollup run` first")
    if state.backfilled < state.backfill_end:
        raise RefusedError("the tables are not filled: run `flask rollup backfill` first")
    return state


def _recomputed(  # noqa: PLR0913, PLR0917 - an organization, its days, and what is needed for them
    database: Database,
    settings: Settings,
    state: Row[Any],
    tenant_id: str,
    wanted: tuple[date, date],
    keeper: Keeper,
) -> tuple[list[Judged], list[Change]]:
    first, last = wanted
    with database.reading() as connection:
        whole, through = _whole_until(connection, tenant_id, state.last_finished)
        lifetime = settings.token_lifetime_seconds
        begin = first - (WARM_UP_DAYS + HISTORY_DAYS) * DAY
        options = options_for(connection, [tenant_id], lifetime, begin, whole)[tenant_id]
        began = first_days(connection, [tenant_id], complete_from(state)).get(tenant_id)
    if began is None or max(first, began) > min(last, whole):
        return [], []
    days = _Days(max(first, began), min(last, whole), whole)
    judged, states = _judged(database, tenant_id, options, began, days, keeper)
    judged_through = "" if through is None else through.isoformat()
    if judged_through in states:
        known = {day: one for day, one in states.items() if day <= judged_through}
        judged.progress = {"states": states_text(last_states(known))}
    with database.reading() as connection:
        return [judged], changes(connection, [judged])


class _Days(NamedTuple):
    """The days to judge anew, and the last whole day."""

    first: date
    last: date
    whole: date


def _judged(  # noqa: PLR0913, PLR0917 - as above
    database: Database,
    tenant_id: str,
    options: Options,
    began: date,
    days: _Days,
    keeper: Keeper,
) -> tuple[Judged, dict[str, State]]:
    """What is found, and the states after the days that were judged for it."""
    first, last, whole = days
    warm_from = max(min(began, first), first - WARM_UP_DAYS * DAY)
    counts = history(database, tenant_id, warm_from, whole, began)
    state = warm_up(counts, tenant_id, options, warm_from, first, keep=keeper.keep)
    begin, end = midnight(first), midnight(last + DAY)
    found: dict[str, Finding] = {}
    states: dict[str, State] = {}
    judging = judged_days(counts, tenant_id, options, first, whole, state, keep=keeper.keep)
    for day, after, touched in judging:
        states[day.isoformat()] = after
        found |= {one.id: one for one in touched if begin < one.opened_at <= end}
        if day >= last and not any(one.id in found and one.is_open for one in after.findings):
            break
    return Judged(tenant_id, begin, end, findings=found), states


def _tenants(database: Database, organization: str | None) -> Iterator[str]:
    """The organizations that have counts, by id."""
    if organization is not None:
        yield organization
        return
    after, column = "", daily_issuance.c.tenant_id
    while True:
        statement = sa.select(column).where(column > after).group_by(column).order_by(column)
        with database.reading() as connection:
            part = list(connection.scalars(statement.limit(BATCH)))
        if not part:
            return
        yield from part
        after = part[-1]


def _whole_until(
    connection: Connection, tenant_id: str, counted_at: datetime
) -> tuple[date, date | None]:
    """The last whole day, and the last one that was judged.

    Of an organization that was never judged, these are yesterday and ``None``.
    """
    column = usual.c
    row = connection.execute(
        sa.select(column.delay_seconds, column.judged_through).where(column.tenant_id == tenant_id)
    ).one_or_none()
    if row is None:
        return counted_at.date() - DAY, None
    delay = timedelta(seconds=row.delay_seconds)
    return (counted_at - delay).date() - DAY, row.judged_through


def _count(done: Recomputed, found: list[Change]) -> None:
    done.organizations += 1
    for change in found:
        if change.is_new:
            done.opened += 1
        elif change.finding.resolution == "corrected":
            done.corrected += 1
        else:
            done.changed += 1
