"""Citus: distributes tables over nodes, and finds transactions that a node still holds prepared.

Without the extension this module does nothing. All rows of a tenant, in every table, are on one
node. So a read asks one node, and that node counts the tenant's summaries from its own events. The
state row is on every node. The run history, the purged months, the positions of sources, the keys
of callers, share links and the audit log stay at the coordinator.

A transaction that has ended at the coordinator can still have prepared parts at other nodes. That
happens when the connection to a node breaks after all parts are prepared. The transaction is then
committed, and its locks at the coordinator are gone. But its part stays invisible until the node
recovers it, after at most ``citus.recover_2pc_interval``. Such a part still locks the shards that
it has written to, even after a crash of the node.
"""

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Table

from app.errors import UnavailableError
from app.storage.engines import CITUS
from app.storage.tables import issuance_events, metadata, rollup_state


def is_citus(connection: Connection) -> bool:
    """Whether the database had the extension Citus when the session began."""
    return bool(connection.info.get(CITUS))


TENANT = "tenant_id"

# A table whose rows may have no tenant, as api_keys or audit_log, stays at the coordinator. So does
# one whose rows are found by an id alone, as share_links: a unique key would need the tenant.
_BY_TENANT = [
    table.name
    for table in metadata.sorted_tables
    if TENANT in table.c
    and not table.c[TENANT].nullable
    and (not table.primary_key.columns or TENANT in table.primary_key.columns)
]
# An advisory lock, so that two hosts that upgrade at the same time take turns.
_LOCK = 6_021_977_140_052
_DISTRIBUTED = sa.text("SELECT CAST(logicalrelid AS text) FROM pg_dist_partition")


def distribute(connection: Connection, shard_count: int | None = None) -> None:
    """Distribute the tables that are still local, with their rows, in the caller's transaction.

    Args:
        shard_count: the number of shards of the first table, which all other tables follow.
            Default: ``citus.shard_count``.
    """
    if not is_citus(connection):
        return
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
    if shard_count is not None:
        name, count = "citus.shard_count", str(shard_count)
        connection.execute(sa.select(sa.func.set_config(name, count, True)))
    # After an upgrade to an earlier revision, some tables do not exist yet.
    missing = set(sa.inspect(connection).get_table_names()) - set(connection.scalars(_DISTRIBUTED))
    beside = "none"
    for name in sorted(_BY_TENANT, key=lambda name: name != issuance_events.name):
        if name in missing:
            where = sa.text(f"colocate_with => '{beside}'")
            connection.execute(sa.select(sa.func.create_distributed_table(name, TENANT, where)))
        beside = issuance_events.name
    if rollup_state.name in missing:
        connection.execute(sa.select(sa.func.create_reference_table(rollup_state.name)))


# The transactions with a writer's lock on a shard, which is a table named with a shard number.
_HELD = """
    SELECT coalesce(string_agg(DISTINCT virtualtransaction, ' '), '')
    FROM pg_locks JOIN pg_class ON pg_class.oid = relation
    WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND granted
    AND relname ~ '^({names})_[0-9]+$'
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_ASK = sa.text("SELECT nodeid, success, result FROM run_command_on_all_nodes(:command)")


def open_parts(connection: Connection, tables: Iterable[Table[Any]]) -> frozenset[str]:
    """Open parts of transactions that wrote to ``tables``, as ``node:virtual transaction``.

    Empty without Citus.

    Raises:
        UnavailableError: a node does not answer, so its parts are unknown.
    """
    if not is_citus(connection):
        return frozenset()
    command = _HELD.format(names="|".join(table.name for table in tables))
    answers = connection.execute(_ASK, {"command": command}).all()
    for answer in answers:
        if not answer.success:
            raise UnavailableError(
                f"node {answer.nodeid} of the cluster does not answer; check that it runs"
            )
    return frozenset(f"{node}:{held}" for node, _, found in answers for held in found.split())
