"""The service with an additional route: a constant body, without authentication or database."""

from functools import lru_cache

from flask import Response

from wsgi import app

__all__ = ["app"]


@app.get("/benchmark/<int:size>")
def constant(size: int) -> Response:
    """A body of ``size`` bytes, the size of the response that is compared with it."""
    return Response(_body(size), mimetype="application/json")


@lru_cache
def _body(size: int) -> bytes:
    return b"0" * size
