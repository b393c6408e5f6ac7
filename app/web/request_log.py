"""What each request leaves behind: a line in the log, numbers, a span; and its id, in and out."""

import logging
import re
import time
import uuid
from http import HTTPStatus
from typing import Any

from flask import Flask, Response, g, request

from app.telemetry import logs, metrics, tracing

log = logging.getLogger("app.request")

REQUEST_ID = "X-Request-Id"
_USABLE = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


def init_app(app: Flask) -> None:
    """Before anything else is registered: the first to see a request, the last a response."""
    app.before_request(_begin)
    app.after_request(_end)
    app.teardown_request(_forget)


def note(**fields: Any) -> None:
    """Put fields to the request's line."""
    g.setdefault("noted", {}).update(fields)


def _begin() -> None:
    g.began = time.perf_counter()
    given = request.headers.get(REQUEST_ID, "")
    # Anybody's text: what a log or another system could stumble over is replaced, not repeated.
    g.request_id = given if _USABLE.fullmatch(given) else uuid.uuid4().hex
    tracing.set_route(_route())
    g.traceparent = tracing.traceparent(request.headers.get(tracing.HEADER))
    g.bound = logs.bind(request_id=g.request_id, trace_id=tracing.trace_id(g.traceparent))


def _end(response: Response) -> Response:
    seconds = time.perf_counter() - g.began
    route, status = _route(), response.status_code
    metrics.count_request(request.method, route, status, seconds)
    response.headers[REQUEST_ID] = g.request_id
    if g.traceparent is not None:
        response.headers[tracing.HEADER] = g.traceparent
    caller = g.get("caller")
    level = logging.ERROR if status >= HTTPStatus.INTERNAL_SERVER_ERROR else logging.INFO
    # The route, not the path: somebody may have put a token there.
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
        subject=caller and caller.subject,
        **g.get("noted", {}),
    )
    return response


def _forget(_error: BaseException | None) -> None:
    bound = g.pop("bound", None)
    if bound is not None:
        logs.unbind(bound)


def _route() -> str | None:
    """The template that matched; ``None`` for a path that is none of ours."""
    return request.url_rule.rule if request.url_rule else None
