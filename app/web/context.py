"""Context of a request: the application's services and the request's database connection."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from flask import Flask, current_app, g, request
from sqlalchemy import Connection

from app.config.settings import Settings
from app.dates import kept_from
from app.detection import Options
from app.errors import UnavailableError
from app.intake.organization_settings import options_of, read_settings, settings_of
from app.intake.organizations import Organizations
from app.reports.finer import Kept
from app.storage.database import Database
from app.waits import HEALTH, Place, Waits
from app.web import request_log
from app.web.params import TextConverter

EXTENSION = "analytics"


@dataclass
class Services:
    """The services that the factory creates for the views.

    ``organizations`` is the tenant of each organization that records of a provider name, for
    callers who may write for every organization. The server sets ``stopping``: whether this
    process is shutting down.
    """

    settings: Settings
    database: Database
    clock: Callable[[], datetime]
    waits: Waits
    organizations: Organizations | None = None
    stopping: Callable[[], bool] = lambda: False
    long_responses: threading.BoundedSemaphore = field(init=False)

    def __post_init__(self) -> None:
        self.long_responses = threading.BoundedSemaphore(max(1, self.settings.web_threads // 2))


def init_app(app: Flask, services: Services) -> None:
    """Attach the services, register ``<text:name>``, and limit the requests under way."""
    app.extensions[EXTENSION] = services
    app.url_map.converters["text"] = TextConverter
    app.before_request(_take_place)
    app.teardown_appcontext(_close)


def services() -> Services:
    """The services of the current application."""
    found: Services = current_app.extensions[EXTENSION]
    return found


def connection() -> Connection:
    """The request's connection, opened at first use. It reads only the request's tenant.

    In a view that is for operators (``g.for_operators``) it reads the list of all organizations.
    """
    if "connection" not in g:
        database = services().database
        g.connection = (
            database.reading_organizations()
            if "for_operators" in g
            else database.reading_for(g.get("tenant_id"))
        )
    opened: Connection = g.connection
    return opened


def kept() -> Kept:
    """What the finer tables keep today."""
    today, settings = services().clock().date(), services().settings
    return Kept(
        kept_from(today, settings.hourly_retention_days),
        kept_from(today, settings.agent_daily_retention_days),
    )


def stored_options(tenant_id: str) -> Options:
    """The settings of the request's organization, as sentences about findings need them."""
    if "options" not in g:
        found = settings_of(connection(), tenant_id)
        g.options = options_of(found, services().settings.token_lifetime_seconds)
    options: Options = g.options
    return options


def options_from(row: Any) -> Options:
    """The settings of the request's organization, from a row with the columns of their table."""
    return options_of(read_settings(row), services().settings.token_lifetime_seconds)


class Snapshot:
    """A connection with one snapshot, in place of the request's, while a long response is sent.

    The request's place among those under way is kept as long, even while its client is slow. So at
    most half of the places are used so.

    Raises:
        UnavailableError: too many such responses are being sent.
    """

    def __init__(self) -> None:
        self._slots = services().long_responses
        if not self._slots.acquire(blocking=False):
            raise UnavailableError("too many long reports are being sent; try again")
        try:
            _close_connection()  # a request uses one connection
            database = services().database
            self.connection = (
                database.reading_organizations(snapshot=True)
                if "for_operators" in g
                else database.snapshot_for(g.tenant_id)
            )
        except BaseException:
            self._slots.release()
            raise
        self._is_open = True
        self._place: Place = g.pop("place")
        self._place.keep()
        g.kept = self

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
            try:
                self.connection.close()
            finally:
                self._place.end()
                self._slots.release()


def _take_place() -> None:
    """Take a place among the requests under way; ``/health`` is answered without one.

    Raises:
        UnavailableError: all places are taken by requests that seem to be stuck.
    """
    if request.path != HEALTH:
        try:
            g.place = Place(services().waits.requests)
        except UnavailableError:
            request_log.note(cause="busy")
            raise


def _close(error: BaseException | None) -> None:
    """Close the request's connection, then end its place.

    After an error, the response that would close a snapshot is not sent.
    """
    place: Place | None = g.pop("place", None)
    snapshot: Snapshot | None = g.pop("kept", None)
    try:
        _close_connection()
        if error is not None and snapshot is not None:
            snapshot.close()
    finally:
        if place is not None:
            place.end()


def _close_connection() -> None:
    opened: Connection | None = g.pop("connection", None)
    if opened is not None:
        opened.close()
