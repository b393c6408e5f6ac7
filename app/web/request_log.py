"""Request logging, metrics and tracing. Reads and returns ``X-Request-Id``."""

import logging
import re
import time
import uuid
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, g, request

from app.errors import ServiceError
from app.telemetry import logs, metrics, tracing

log = logging.getLogger("app.request")

REQUEST_ID = "X-Request-Id"
_VALID_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


def init_app(app: Flask) -> None:
    """Register the hooks. Call it first, so that they enclose those of other modules."""
    app.before_request(_begin)
    app.after_request(_finish)
    app.teardown_request(_unbind_log)


def note(**fields: Any) -> None:
    """Add fields to the request's log line."""
    g.setdefault("log_fields", {}).update(fields)


def note_cause(error: ServiceError) -> None:
    """Add the cause of an error to the request's log line; the response does not have it."""
    if error.cause is not None:
        note(cause=error.cause)


def _begin() -> None:
    g.began = time.perf_counter()
    given = request.headers.get(REQUEST_ID, "")
    # The header is untrusted text: an id that could break a log is replaced.
    g.request_id = given if _VALID_ID.fullmatch(given) else uuid.uuid4().hex
    tracing.set_route(_route())
    g.traceparent = tracing.traceparent(request.headers.get(tracing.HEADER))
    g.log_binding = logs.bind(request_id=g.request_id, trace_id=tracing.trace_id(g.traceparent))


def _finish(response: Response) -> Response:
    seconds = time.perf_counter() - g.began
    route, status = _route(), response.status_code
    metrics.count_request(request.method, route, status, seconds)
    response.headers[REQUEST_ID] = g.request_id
    if g.traceparent is not None:
        response.headers[tracing.HEADER] = g.traceparent
    caller = g.get("caller")
    level = logging.ERROR if status >= HTTPStatus.INTERNAL_SERVER_ERROR else logging.INFO
    # The route, not the path: a path may hold a token by mistake.
    logs.write(
        log,
        level,
        "request",
        method=request.method,
        route=route,
        status=status,
        seconds=round(seconds, 6),
        bytes=response.content_length,
        client=request.remote_addr,
        tenant=caller and caller.tenant_id,
        client_id=caller and caller.client_id,
        subject=caller and caller.client_id,  # the same, by its name in 0.1.0
        **g.get("log_fields", {}),
    )
    return response


def _unbind_log(_error: BaseException | None) -> None:
    binding = g.pop("log_binding", None)
    if binding is not None:
        logs.unbind(binding)


def _route() -> str | None:
    """The URL rule that matched; ``None`` for an unknown path."""
    return request.url_rule.rule if request.url_rule else None
