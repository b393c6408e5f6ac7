"""Liveness and readiness, for load balancers; no token, no details."""

from flask import Blueprint, Response
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.errors import UnavailableError
from app.schema import is_current
from app.views.answers import Health
from app.views.web import connection, json_response, services

bp = Blueprint("health", __name__)


@bp.get("/health")
def health() -> Response:
    """The process answers."""
    return json_response(Health("ok"))


@bp.get("/ready")
def ready() -> Response:
    """The database is reachable and has the schema that this code needs.

    503 while the process ends, so that no client sends it more.
    """
    if services().stopping():
        raise UnavailableError("the service is shutting down")
    try:
        current = is_current(connection())
    except PoolTimeoutError:
        raise  # 503, too, and counted
    except SQLAlchemyError:
        raise UnavailableError("the database is unreachable") from None
    if not current:
        raise UnavailableError("the database schema is not the one this version needs")
    return json_response(Health("ready"))
