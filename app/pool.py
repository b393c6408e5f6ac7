"""Pooled connections: who was idle is asked whether it still lives before it is used.

A server that restarted and a network that forgot leave dead connections in the pool, and
asking costs a round trip, as long as a read itself. One that worked within the last second
is taken at its word: what it meets then it could have met a moment after the question, too.
"""

import time
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import InvalidatePoolError

IDLE_SECONDS = 1.0
_SINCE = "idle_since"


def ask_the_idle(engine: sa.Engine) -> None:
    """Replace dead connections when they are taken from the pool of ``engine``."""

    @sa.event.listens_for(engine, "checkin")
    def rest(_connection: Any, record: Any) -> None:
        record.info[_SINCE] = time.monotonic()

    @sa.event.listens_for(engine, "checkout")
    def wake(connection: Any, record: Any, _proxy: Any) -> None:
        since = record.info.get(_SINCE)
        if since is None or time.monotonic() - since < IDLE_SECONDS:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            # The others are as old: all are replaced, this one first.
            raise InvalidatePoolError from error
