"""How many requests one tenant may send (``RATE_LIMIT``), over all routes together."""

from http import HTTPStatus

from flask import Flask, Response, current_app, g
from flask_limiter import Limiter

from app.config import Settings

EXTENSION = "analytics_limit"


def init_app(app: Flask, settings: Settings) -> None:
    """Prepare counting, in this process or, for all of them, in Redis."""
    app.extensions[EXTENSION] = None
    if settings.rate_limit is None:
        return
    app.after_request(_wait)  # before the library's own, so called after it
    limiter = Limiter(
        _caller,
        app=app,
        storage_uri=settings.rate_limit_storage,
        # The last minute, whenever it began: a fixed one lets twice as many through at its turn.
        strategy="moving-window",
        headers_enabled=True,
        # Without Redis each process counts by itself: better than no answers, or no limit.
        in_memory_fallback_enabled=True,
    )
    limit = limiter.shared_limit(settings.rate_limit, scope="tenant", key_func=_caller)
    app.extensions[EXTENSION] = limit(_nothing)


def count_request() -> None:
    """Count the request; a blueprint's ``before_request``, after authentication.

    Raises:
        RateLimitExceeded: too many; answered 429 with ``Retry-After``.
    """
    if (limit := current_app.extensions[EXTENSION]) is not None:
        limit()


def _caller() -> str:
    """The tenant, or the client that writes for all of them."""
    caller = g.caller
    return f"tenant {caller.tenant_id}" if caller.tenant_id else f"client {caller.subject}"


def _nothing() -> None:
    """What the limit is put on."""


def _wait(response: Response) -> Response:
    """At least a second: in the last part of one the library rounds the wait to none."""
    if response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
        wait = response.headers.get("Retry-After", 0, type=int)
        response.headers["Retry-After"] = str(max(wait, 1))
    return response
