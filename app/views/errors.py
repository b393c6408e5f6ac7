"""Every error as the envelope ``{"code", "message", "details"}``, Flask's own included."""

import logging
from http import HTTPStatus

from flask import Flask, Response
from werkzeug.exceptions import HTTPException

from app.db import is_unavailable
from app.errors import ServiceError, UnavailableError
from app.views.bodies import too_large
from app.views.web import json_response

log = logging.getLogger("app")

_CODES = {
    400: "VALIDATION_ERROR",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    415: "UNSUPPORTED_MEDIA_TYPE",
    429: "RATE_LIMIT_EXCEEDED",
    503: "SERVICE_UNAVAILABLE",
}


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
        return service_error(too_large())
    message = HTTPStatus(status).phrase
    code = _CODES.get(status, "INTERNAL_ERROR" if status >= 500 else "VALIDATION_ERROR")
    response = envelope(status, code, message)
    for name, value in error.get_headers():
        if name not in ("Content-Type", "Content-Length"):
            response.headers[name] = value
    return response


def unexpected_error(error: Exception) -> Response:
    """The database away: 503. Anything else is a bug: logged whole, shown as nothing."""
    if is_unavailable(error):
        log.error("database unavailable: %s", type(error).__name__)
        return service_error(UnavailableError("the database is unavailable; try again"))
    log.error("unexpected error", exc_info=error)
    return envelope(500, "INTERNAL_ERROR", "an unexpected error occurred")


def envelope(status: int, code: str, message: str, details: object = None) -> Response:
    """The error body with its status; never cached."""
    body: dict[str, object] = {"code": code, "message": message}
    if details is not None:
        body["details"] = details
    response = json_response(body, status)
    response.headers["Cache-Control"] = "no-store"
    return response
