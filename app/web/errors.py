"""Error responses: JSON ``{"code", "message", "details"}`` for programs, a page for browsers.

Flask's own errors have the same form.
"""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, g, request
from msgspec import UNSET
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from werkzeug.exceptions import HTTPException

from app.errors import CODES, ServiceError, UnavailableError
from app.storage.failures import is_unavailable, unavailable_message
from app.telemetry import metrics
from app.web import request_log
from app.web.api.bodies import too_large
from app.web.api.schemas import Problem
from app.web.context import services
from app.web.responses import json_response, page_response

log = logging.getLogger("app")

# What a page says instead of the status' own phrase.
_HEADINGS = {403: "No permission", 404: "Page not found", 503: "Unavailable"}

# Programs call these paths, so their errors are JSON, even if the client accepts HTML.
PROGRAM_PATHS = ("/api/", "/health", "/ready", "/metrics")


def init_app(app: Flask) -> None:
    """Register the error handlers."""
    app.register_error_handler(ServiceError, service_error)
    app.register_error_handler(HTTPException, http_error)
    app.register_error_handler(Exception, unexpected_error)


def service_error(error: ServiceError) -> Response:
    """Respond to an error of the service itself, and log its cause."""
    request_log.note_cause(error)
    response = _error_response(error.status, error.code, error.message, error.details)
    response.headers.update(error.headers)
    return response


def http_error(error: HTTPException) -> Response:
    """Respond to an error that Flask or Werkzeug raised."""
    status = error.code or 500
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return service_error(too_large(services().settings.max_body_bytes))
    message = HTTPStatus(status).phrase
    code, _ = CODES.get(status, CODES[500 if status >= 500 else 400])
    response = _error_response(status, code, message)
    for name, value in error.get_headers():
        if name not in ("Content-Type", "Content-Length"):
            response.headers[name] = value
    return response


def unexpected_error(error: Exception) -> Response:
    """Respond 503 when the database is unavailable. Any other error is a bug: log it, respond 500.

    A bug's response has no details.
    """
    if isinstance(error, PoolTimeoutError):
        metrics.count_timeout()
    if is_unavailable(error):
        message = unavailable_message(error)
        log.error("database unavailable: %s: %s", type(error).__name__, message)
        return service_error(UnavailableError(message))
    log.error("unexpected error", exc_info=error)
    return _error_response(500, *CODES[500])


def sentence(message: str) -> str:
    """An error's message as a sentence for a page."""
    return f"{message[:1].upper()}{message[1:]}."


def envelope(
    status: int, code: str, message: str, details: Mapping[str, Any] | None = None
) -> Response:
    """The JSON body of an error; never cached."""
    body = Problem(code, message, UNSET if details is None else dict(details))
    response = json_response(body, status)
    response.headers["Cache-Control"] = "no-store"
    return response


def _error_response(
    status: int, code: str, message: str, details: Mapping[str, Any] | None = None
) -> Response:
    if not _wants_page():
        return envelope(status, code, message, details)
    phrase = HTTPStatus(status).phrase
    if message == phrase:
        message = CODES.get(status, ("", phrase))[1].replace("route", "page")
    response = page_response(
        "error.html",
        status=status,
        heading=_HEADINGS.get(status, phrase),
        text=sentence(message),
        request_id=g.request_id,
    )
    response.status_code = status
    response.headers["Cache-Control"] = "no-store"
    return response


def _wants_page() -> bool:
    """Whether the client prefers a page to JSON; a client that accepts anything gets JSON."""
    if request.path.startswith(PROGRAM_PATHS):
        return False
    types = ("application/json", "text/html")
    return request.accept_mimetypes.best_match(types) == "text/html"
