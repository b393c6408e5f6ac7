"""Health: liveness and readiness for load balancers, without a token."""

from flask import Blueprint, Response
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.errors import UnavailableError
from app.storage.schema import is_current
from app.web import errors
from app.web.api.schemas import Health
from app.web.context import connection, services
from app.web.responses import json_response

bp = Blueprint("health", __name__)
# A timeout of the connection pool is counted, as in every other request.
bp.register_error_handler(PoolTimeoutError, errors.unexpected_error)


@bp.get("/health")
def health() -> Response:
    """The process responds."""
    return json_response(Health("ok"))


@bp.get("/ready")
def ready() -> Response:
    """The database is reachable and has the current schema.

    A process that shuts down is not ready, so that load balancers send it no more requests.
    """
    if services().stopping():
        raise UnavailableError("the service is shutting down; send requests to another process")
    if not is_current(connection()):
        raise UnavailableError("the database schema is not current; run `flask db upgrade`")
    return json_response(Health("ready"))


@bp.errorhandler(SQLAlchemyError)
def database_error(_error: SQLAlchemyError) -> Response:
    """Any database error means "not ready", even one that is a 500 elsewhere."""
    return errors.service_error(UnavailableError("the database is unreachable; try again later"))
