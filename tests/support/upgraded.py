"""A database as after the upgrade that added the finer tables."""

import sqlalchemy as sa
from sqlalchemy import Connection

from app.storage.database import Database
from app.storage.tables import rollup_state
from jobs.counting.tables import FINER_TABLES


def forget_finer_tables(database: Database) -> None:
    """As if every event that is counted by now was counted before the upgrade."""

    def forget(connection: Connection) -> None:
        for summary in FINER_TABLES:
            connection.execute(sa.delete(summary.table))
        counted = rollup_state.c.counted_upto
        connection.execute(sa.update(rollup_state).values(backfilled=0, backfill_end=counted))

    database.write(forget)
