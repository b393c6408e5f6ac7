"""The service, with one route more: a body without authentication or database behind it."""

import os

from flask import Response

from wsgi import app

__all__ = ["app"]

_BODY = b"0" * int(os.environ["BENCHMARK_BODY_BYTES"])


@app.get("/benchmark/constant")
def constant() -> Response:
    """As many bytes as the answer that it is compared with."""
    return Response(_BODY, mimetype="application/json")
