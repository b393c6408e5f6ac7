"""The state row: reading it, locking it, and the error when it is missing."""

import time
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row, Table

from app.dates import EPOCH
from app.errors import RefusedError, UnavailableError
from app.storage.citus import open_parts
from app.storage.complete_days import COMPLETE_FROM
from app.storage.tables import (
    agents,
    api_keys,
    audit_log,
    budgets,
    client_organizations,
    detection_state,
    erasures,
    findings,
    issuance_events,
    metadata,
    organization_settings,
    organization_summaries,
    organization_summary_state,
    page_sessions,
    rollup_state,
    share_links,
    source_positions,
    usual,
    webhook_endpoints,
    webhook_messages,
)

POLL_SECONDS = 0.05
# Citus recovers prepared parts every minute.
PATIENCE_SECONDS = 90
_OTHERS = {
    *(issuance_events, agents, api_keys, source_positions),
    *(findings, usual, detection_state, organization_settings, audit_log, share_links),
    *(organization_summaries, organization_summary_state, budgets, page_sessions),
    *(webhook_endpoints, webhook_messages, client_organizations),
}
# The tables that are written only while the state row is locked. Retention deletes months without
# the lock, because nothing else reads or writes those.
LOCKED = [table for table in metadata.sorted_tables if table not in _OTHERS]


def no_state() -> RefusedError:
    """The error for a missing state row: without the watermark nothing can be counted."""
    return RefusedError("rollup_state has no row: restore the database from a backup")


def read_state(connection: Connection, *columns: Any, lock: bool = False) -> Row[Any]:
    """The state row, or other columns selected beside it.

    Args:
        lock: lock the row until the transaction ends, so that callers take turns. On a cluster,
            also wait until earlier callers have ended at every node. Call this first in the
            transaction.

    Raises:
        RefusedError: the row is missing.
        UnavailableError: a node of the cluster is unreachable, or still holds prepared parts.
    """
    state = sa.select(*(columns or (rollup_state,))).select_from(rollup_state)
    row = connection.execute(state.with_for_update() if lock else state).one_or_none()
    if row is None:
        raise no_state()
    if lock:
        await_parts(connection, LOCKED)
    return row


def being_deleted(connection: Connection) -> tuple[str, ...]:
    """The organizations whose deletion has begun and not ended.

    Their tables and events differ meanwhile. So verify, rebuild, resume and purge leave them out.
    """
    whole = sa.select(erasures.c.tenant_id).where(erasures.c.agent_id == "")
    return tuple(sorted(connection.scalars(whole)))


def note_first_kept(connection: Connection, state: Row[Any], kept: Mapping[str, date]) -> None:
    """Note in the locked state row that the finer tables may lack days which are not kept.

    So a read of such a day knows it, even if another retention is set later.

    Args:
        kept: the first day that a table keeps, by its name.
    """
    later = {}
    for table, column in COMPLETE_FROM.items():
        first, noted = kept.get(str(table.name)), getattr(state, column.name)
        if first is not None and (noted is None or noted < first):
            later[column.name] = first
    if later:
        connection.execute(sa.update(rollup_state).values(later))


def note_incomplete(connection: Connection, state: Row[Any], before: date) -> None:
    """Note in the locked state row that the finer tables may lack days before another one."""
    note_first_kept(connection, state, {str(table.name): before for table in COMPLETE_FROM})


def complete_from(state: Row[Any]) -> date:
    """The day from which on all finer tables are complete, once the backfill has ended."""
    noted = (getattr(state, column.name) for column in COMPLETE_FROM.values())
    return max(filter(None, noted), default=EPOCH.date())


def await_parts(connection: Connection, tables: Iterable[Table[Any]]) -> None:
    """On a cluster, wait until no node has an open part of a transaction that wrote to ``tables``.

    Raises:
        UnavailableError: a node is unreachable, or still holds prepared parts.
    """
    give_up = time.monotonic() + PATIENCE_SECONDS
    while parts := open_parts(connection, tables):
        if time.monotonic() > give_up:
            raise UnavailableError(
                f"a transaction is still prepared at a node: {', '.join(sorted(parts))}"
                " (see recover_prepared_transactions() of Citus)"
            )
        time.sleep(POLL_SECONDS)
