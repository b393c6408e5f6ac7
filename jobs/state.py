"""The job's state row, and what it means when it is missing."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Row

from app.errors import RefusedError
from app.models import rollup_state


def no_state() -> RefusedError:
    """There is no state row: nothing may be counted, nothing is known as counted.

    A copy takes the row away from the database that it fills and brings it with the rest, so
    that no job counts half of the events there.
    """
    return RefusedError(
        "rollup_state has no row: a copy into this database was not finished (run"
        " `flask db copy` again), or the row was lost (restore the database from a backup)"
    )


def read_state(connection: Connection, *columns: Any, lock: bool = False) -> Row[Any]:
    """Columns beside the state row, by default its own; locked until the transaction ends.

    Raises:
        RefusedError: there is no such row.
    """
    state = sa.select(*(columns or (rollup_state,))).select_from(rollup_state)
    row = connection.execute(state.with_for_update() if lock else state).one_or_none()
    if row is None:
        raise no_state()
    return row
