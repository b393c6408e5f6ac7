"""Every error as the envelope ``{"code", "message", "details"}``, Flask's own included."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from flask import Flask, Response
from msgspec import UNSET
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from werkzeug.exceptions import HTTPException

from app import metrics
from app.db import is_unavailable
from app.errors import CODES, ServiceError, UnavailableError
from app.views.answers import Problem
from app.views.bodies import too_large
from app.views.web import json_response, services

log = logging.getLogger("app")


def init_app(app: Flask) -> None:
    """Register the handlers."""
    app.register_error_handler(ServiceError, service_error)
    app.register_error_handler(HTTPException, http_error)
    app.register_error_handler(Exception, unexpected_error)


def service_error(error: ServiceError) -> Response:
    """One of the service's own errors."""
    response = envelope(error.status, error.code, error.message, error.details)
    response.headers.update(error.headers)
    return response


def http_error(error: HTTPException) -> Response:
    """An error that Flask or Werkzeug raised."""
    status = error.code or 500
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return service_error(too_large(services().settings.max_body_bytes))
    message = HTTPStatus(status).phrase
    code, _ = CODES.get(status, CODES[500 if status >= 500 else 400])
    response = envelope(status, code, message)
    for name, value in error.get_headers():
        if name not in ("Content-Type", "Content-Length"):
            response.headers[name] = value
    return response


def unexpected_error(error: Exception) -> Response:
    """The database away: 503. Anything else is a bug: logged whole, shown as nothing."""
    if isinstance(error, PoolTimeoutError):
        metrics.count_timeout()
    if is_unavailable(error):
        log.error("database unavailable: %s", type(error).__name__)
        return service_error(UnavailableError("the database is unavailable; try again"))
    log.error("unexpected error", exc_info=error)
    return envelope(500, *CODES[500])


def envelope(
    status: int, code: str, message: str, details: Mapping[str, Any] | None = None
) -> Response:
    """The error body with its status; never cached."""
    body = Problem(code, message, UNSET if details is None else dict(details))
    response = json_response(body, status)
    response.headers["Cache-Control"] = "no-store"
    return response
