"""The job's state row, and what it means when it is missing."""

import time
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row

from app.errors import RefusedError, UnavailableError
from app.models import agents, issuance_events, metadata, rollup_state
from jobs.nodes import open_parts

POLL_SECONDS = 0.05
# Citus recovers by itself every minute.
PATIENCE_SECONDS = 90
# What is written under the state row's lock alone.
LOCKED = [table for table in metadata.sorted_tables if table not in (issuance_events, agents)]


def no_state() -> RefusedError:
    """The error for a missing state row: nothing may be counted, nothing is known as counted."""
    return RefusedError("rollup_state has no row: restore the database from a backup")


def read_state(connection: Connection, *columns: Any, lock: bool = False) -> Row[Any]:
    """Columns beside the state row, by default its own.

    ``lock``: in turns, until the transaction ends. Those who had it before have ended then at
    every node of a cluster, too. Call it first in the transaction.

    Raises:
        RefusedError: there is no such row.
        UnavailableError: a node of the cluster is away, or has not recovered what is prepared.
    """
    state = sa.select(*(columns or (rollup_state,))).select_from(rollup_state)
    row = connection.execute(state.with_for_update() if lock else state).one_or_none()
    if row is None:
        raise no_state()
    if lock:
        _await_others(connection)
    return row


def _await_others(connection: Connection) -> None:
    give_up = time.monotonic() + PATIENCE_SECONDS
    while parts := open_parts(connection, LOCKED):
        if time.monotonic() > give_up:
            raise UnavailableError(
                f"a transaction is still prepared at a node: {', '.join(sorted(parts))}"
                " (see recover_prepared_transactions() of Citus)"
            )
        time.sleep(POLL_SECONDS)
