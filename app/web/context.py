"""What the views share: the application's services, the request's connection, responses."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from flask import Flask, current_app, g
from sqlalchemy import Connection

from app.config.settings import Settings
from app.storage.database import Database
from app.web.params import TextConverter

EXTENSION = "analytics"


@dataclass
class Services:
    """What the factory composed for the views.

    ``stopping`` is the server's to say: whether this process was told to end.
    """

    settings: Settings
    database: Database
    clock: Callable[[], datetime]
    stopping: Callable[[], bool] = lambda: False


def init_app(app: Flask, services: Services) -> None:
    """Attach the services and close each request's connection with it."""
    app.extensions[EXTENSION] = services
    app.url_map.converters["text"] = TextConverter
    app.teardown_appcontext(_close_connection)


def services() -> Services:
    """The running application's services."""
    found: Services = current_app.extensions[EXTENSION]
    return found


def connection() -> Connection:
    """The request's connection, taken at first use: for its own tenant's reads alone."""
    if "connection" not in g:
        g.connection = services().database.reading_for(g.get("tenant_id"))
    found: Connection = g.connection
    return found


def _close_connection(_error: BaseException | None) -> None:
    taken: Connection | None = g.pop("connection", None)
    if taken is not None:
        taken.close()
