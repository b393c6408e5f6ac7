"""Citus: which tables its nodes share, and how. Without the extension there is nothing to do.

Every tenant's rows, of all tables, lie together in one shard, so that a read asks one node and
a summary is counted where its events are. The job's row of state is on every node, beside what
reads it; its history and what was purged stay where the jobs connect to.
"""

import sqlalchemy as sa
from sqlalchemy import Connection

from app.db import is_citus
from app.models import issuance_events, metadata, rollup_state

TENANT = "tenant_id"

_SPREAD = [table.name for table in metadata.sorted_tables if TENANT in table.c]
# Two hosts that upgrade at once take turns.
_LOCK = 6_021_977_140_052
_DISTRIBUTED = sa.text("SELECT CAST(logicalrelid AS text) FROM pg_dist_partition")


def distribute(connection: Connection, shard_count: int | None = None) -> None:
    """Spread the tables that are not yet, with the rows they have, in the caller's transaction.

    Args:
        shard_count: of the first table, which all others follow; by default as
            ``citus.shard_count`` says.
    """
    if not is_citus(connection):
        return
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
    if shard_count is not None:
        name, count = "citus.shard_count", str(shard_count)
        connection.execute(sa.select(sa.func.set_config(name, count, True)))
    # After an upgrade to an earlier version some are not there yet.
    missing = set(sa.inspect(connection).get_table_names()) - set(connection.scalars(_DISTRIBUTED))
    beside = "none"
    for name in sorted(_SPREAD, key=lambda name: name != issuance_events.name):
        if name in missing:
            where = sa.text(f"colocate_with => '{beside}'")
            connection.execute(sa.select(sa.func.create_distributed_table(name, TENANT, where)))
        beside = issuance_events.name
    if rollup_state.name in missing:
        connection.execute(sa.select(sa.func.create_reference_table(rollup_state.name)))
