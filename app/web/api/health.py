"""Liveness and readiness, for load balancers; no token, no details."""

from flask import Blueprint, Response
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.errors import UnavailableError
from app.reports.base import has_numbers
from app.storage.schema import is_current
from app.web.api.schemas import Health
from app.web.context import connection, services
from app.web.responses import json_response

bp = Blueprint("health", __name__)


@bp.get("/health")
def health() -> Response:
    """The process answers."""
    return json_response(Health("ok"))


@bp.get("/ready")
def ready() -> Response:
    """The database is reachable, has the schema that this code needs, and is no half copy.

    Not while the process ends, so that nobody sends it more.
    """
    if services().stopping():
        raise UnavailableError("the service is shutting down")
    try:
        current = is_current(connection())
        whole = current and has_numbers(connection())
    except PoolTimeoutError:
        raise  # 503, too, and counted
    except SQLAlchemyError:
        raise UnavailableError("the database is unreachable") from None
    if not current:
        raise UnavailableError("the database schema is not the one this version needs")
    if not whole:
        raise UnavailableError("a copy into the database is unfinished")
    return json_response(Health("ready"))
