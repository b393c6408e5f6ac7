"""Responses: JSON, HTML pages, and reports with an ETag."""

from datetime import datetime
from functools import partial
from typing import Any

import msgspec
from flask import Response, g, render_template, request
from werkzeug.http import generate_etag

from app.web.api.schemas import ResponseBody, Tabular
from app.web.csv_export import MIMETYPE as CSV
from app.web.csv_export import csv_file, csv_points

JSON = "application/json"
# No inline scripts or styles, nothing from other hosts, and no page inside a frame.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def json_response(body: ResponseBody, status: int = 200) -> Response:
    """A body as JSON."""
    return Response(msgspec.json.encode(body), status, mimetype=JSON)


def page_response(template: str, **context: Any) -> Response:
    """An HTML page. It loads styles, scripts and images from this service only."""
    response = Response(render_template(template, **context), mimetype="text/html")
    response.headers["Content-Security-Policy"] = PAGE_POLICY
    # After sign-out the back button must not show a tenant's page from the browser's cache.
    response.headers["Cache-Control"] = "no-store" if "tenant_id" in g else "private, no-cache"
    return response


def report_response(body: ResponseBody, counted_at: datetime | None) -> Response:
    """A report as JSON or CSV, with an ETag; 304 when the client has the same body already.

    Shared caches must not store it, because it belongs to one tenant.
    """
    if isinstance(body, Tabular) and _wants_csv():
        data = csv_points(body.point, body.data)
        full_response = partial(csv_file, body.file, data)
    else:
        data = msgspec.json.encode(body)
        full_response = partial(Response, data, mimetype=JSON)
    etag = generate_etag(data)
    # Not make_conditional(), which also compares Last-Modified: the body changes at midnight even
    # without a run.
    if _client_has(etag):
        response = Response(b"", 304)
    else:
        response = full_response()
        if counted_at is not None:
            response.last_modified = counted_at
    response.headers["Cache-Control"] = "private, no-cache"
    response.headers["Vary"] = "Accept, Authorization"
    response.set_etag(etag)
    return response


def _client_has(etag: str) -> bool:
    """Whether ``If-None-Match`` lists the ETag."""
    # These ETags hold no quotation marks, so a search in the header's text is exact.
    known = request.environ.get("HTTP_IF_NONE_MATCH", "")
    return known == "*" or f'"{etag}"' in known


def _wants_csv() -> bool:
    preferred = request.accept_mimetypes.best_match((JSON, CSV))
    return request.path.endswith(".csv") or preferred == CSV
