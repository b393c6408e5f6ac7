"""Pooled connections: one that may be dead is asked whether it lives before it is used.

Asking costs a round trip, as long as a read itself, so the socket is looked at first. A server
that stopped, or ended the session, has closed it, and that shows at once: there is something to
read where nothing should be. What a network forgot does not show; it takes a while to forget,
so whoever rested for a second is asked as well.
"""

import select
import time
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import InvalidatePoolError

IDLE_SECONDS = 1.0
_SINCE = "idle_since"


def replace_the_dead(engine: sa.Engine) -> None:
    """See to it that who takes a connection of PostgreSQL's from the pool gets a living one."""

    @sa.event.listens_for(engine, "checkin")
    def rest(_connection: Any, record: Any) -> None:
        record.info[_SINCE] = time.monotonic()

    @sa.event.listens_for(engine, "checkout")
    def wake(connection: Any, record: Any, _proxy: Any) -> None:
        since = record.info.get(_SINCE)
        if since is None:  # made just now
            return
        if time.monotonic() - since < IDLE_SECONDS and _is_quiet(connection):
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            # The others are as old: all are replaced, this one first.
            raise InvalidatePoolError from error


def _is_quiet(connection: Any) -> bool:
    """Whether nothing came from the server since its last answer, not even the end."""
    try:
        socket = select.poll()
        socket.register(connection.fileno(), select.POLLIN)
        return not socket.poll(0)
    except connection.OperationalError:  # closed already
        return False
