"""Context of a request: the application's services and the request's database connection."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from flask import Flask, current_app, g, request
from sqlalchemy import Connection

from app.config.settings import Settings
from app.errors import UnavailableError
from app.storage.database import Database
from app.waits import HEALTH, Place, Waits
from app.web import request_log
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
    waits: Waits
    stopping: Callable[[], bool] = lambda: False


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
    """The request's connection, opened at first use. It reads only the request's tenant."""
    if "connection" not in g:
        g.connection = services().database.reading_for(g.get("tenant_id"))
    opened: Connection = g.connection
    return opened


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


def _close(_error: BaseException | None) -> None:
    """Close the request's connection, then end its place."""
    opened: Connection | None = g.pop("connection", None)
    place: Place | None = g.pop("place", None)
    try:
        if opened is not None:
            opened.close()
    finally:
        if place is not None:
            place.end()
