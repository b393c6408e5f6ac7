"""Context of a request: the application's services and the request's database connection."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from flask import Flask, current_app, g
from sqlalchemy import Connection

from app.config.settings import Settings
from app.errors import UnavailableError
from app.storage.database import Database
from app.web.params import TextConverter

EXTENSION = "analytics"


@dataclass
class Services:
    """The services that the factory creates for the views.

    The server sets ``stopping``: whether this process is shutting down.
    """

    settings: Settings
    database: Database
    clock: Callable[[], datetime]
    stopping: Callable[[], bool] = lambda: False
    long_responses: threading.BoundedSemaphore = field(init=False)

    def __post_init__(self) -> None:
        self.long_responses = threading.BoundedSemaphore(max(1, self.settings.web_threads // 2))


def init_app(app: Flask, services: Services) -> None:
    """Attach the services, register ``<text:name>``, and close connections after requests."""
    app.extensions[EXTENSION] = services
    app.url_map.converters["text"] = TextConverter
    app.teardown_appcontext(_close_connection)


def services() -> Services:
    """The services of the current application."""
    found: Services = current_app.extensions[EXTENSION]
    return found


def connection() -> Connection:
    """The request's connection, opened at first use. It reads only the request's tenant."""
    if "connection" not in g:
        g.connection = services().database.reading_for(g.get("tenant_id"))
    opened: Connection = g.connection
    return opened


class Snapshot:
    """A connection with one snapshot, in place of the request's, while a long response is sent.

    A slow client keeps it for long. So at most half of a worker's connections are used so.

    Raises:
        UnavailableError: too many such responses are being sent.
    """

    def __init__(self) -> None:
        self._slots = services().long_responses
        if not self._slots.acquire(blocking=False):
            raise UnavailableError("too many long reports are being sent; try again")
        try:
            _close_connection(None)  # a request uses one connection
            self.connection = services().database.snapshot_for(g.tenant_id)
        except BaseException:
            self._slots.release()
            raise
        self._is_open = True

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep the connection after the block, unless it fails."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the connection back. Further calls do nothing."""
        if self._is_open:
            self._is_open = False
            self._slots.release()
            self.connection.close()


def _close_connection(_error: BaseException | None) -> None:
    opened: Connection | None = g.pop("connection", None)
    if opened is not None:
        opened.close()
