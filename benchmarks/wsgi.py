"""The service, with one route more: a body without authentication or database behind it."""

from functools import lru_cache

from flask import Response

from wsgi import app

__all__ = ["app"]


@app.get("/benchmark/<int:size>")
def constant(size: int) -> Response:
    """As many bytes as the answer that it is compared with."""
    return Response(_body(size), mimetype="application/json")


@lru_cache
def _body(size: int) -> bytes:
    return b"0" * size
