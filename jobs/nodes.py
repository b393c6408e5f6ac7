"""What transactions have left to do at the nodes of a Citus cluster.

A transaction that has ended where its client is connected, at the coordinator, may have parts
at other nodes that have not: when the connection to a node breaks after all are prepared, the
transaction is committed, its locks at the coordinator are gone, and its part there is not seen
before the node has recovered it, up to ``citus.recover_2pc_interval`` later. Such a part still
holds its lock on the shards that it has written to, also over a crash of the node.
"""

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Table

from app.db import is_citus
from app.errors import UnavailableError

# Who holds a writers' lock on a shard of one of the tables, a name with a shard's number.
_HELD = """
    SELECT coalesce(string_agg(DISTINCT virtualtransaction, ' '), '')
    FROM pg_locks JOIN pg_class ON pg_class.oid = relation
    WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND granted
    AND relname ~ '^({names})_[0-9]+$'
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_ASK = sa.text("SELECT nodeid, success, result FROM run_command_on_all_nodes(:command)")


def open_parts(connection: Connection, tables: Iterable[Table[Any]]) -> frozenset[str]:
    """Parts of transactions that have written to ``tables``, as ``node:virtual transaction``.

    Without Citus there are none.

    Raises:
        UnavailableError: a node does not answer, so nobody knows.
    """
    if not is_citus(connection):
        return frozenset()
    command = _HELD.format(names="|".join(table.name for table in tables))
    answers = connection.execute(_ASK, {"command": command}).all()
    for answer in answers:
        if not answer.success:
            raise UnavailableError(f"node {answer.nodeid} of the cluster does not answer")
    return frozenset(f"{node}:{held}" for node, _, found in answers for held in found.split())
