"""Responses: JSON, pages, and reports with their ETag."""

from datetime import datetime
from functools import partial
from typing import Any

import msgspec
from flask import Response, g, render_template, request
from werkzeug.http import generate_etag

from app.web import csv_export as tables
from app.web.api.schemas import Answer, Tabular
from app.web.csv_export import csv_file, csv_points

# No inline script or style; nobody may put a page of ours into a frame.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def json_response(body: Answer, status: int = 200) -> Response:
    """``body`` as JSON."""
    return Response(msgspec.json.encode(body), status, mimetype="application/json")


def page_response(template: str, **context: Any) -> Response:
    """An HTML page that loads styles, scripts and pictures from this service alone."""
    response = Response(render_template(template, **context), mimetype="text/html")
    response.headers["Content-Security-Policy"] = PAGE_POLICY
    # What belongs to a tenant is gone with the session, from behind the back button, too.
    response.headers["Cache-Control"] = "no-store" if "tenant_id" in g else "private, no-cache"
    return response


def report_response(body: Answer, counted_at: datetime | None) -> Response:
    """A tenant's numbers: cached by nobody else, and answered 304 to who has them already."""
    if isinstance(body, Tabular) and _wants_csv():
        data = csv_points(body.point, body.data)
        whole = partial(csv_file, body.file, data)
    else:
        data = msgspec.json.encode(body)
        whole = partial(Response, data, mimetype="application/json")
    etag = generate_etag(data)
    # By the ETag alone, hence not make_conditional(): Last-Modified is for information, since
    # the body also changes as days pass without a run.
    if _is_known(etag):
        response = Response(b"", 304)
    else:
        response = whole()
        if counted_at is not None:
            response.last_modified = counted_at
    response.headers["Cache-Control"] = "private, no-cache"
    response.headers["Vary"] = "Accept, Authorization"
    response.set_etag(etag)
    return response


def _is_known(etag: str) -> bool:
    """Whether the client has the body of that tag. Tags have no quotation marks in them, so that
    the header need not be taken apart."""
    known = request.environ.get("HTTP_IF_NONE_MATCH", "")
    return known == "*" or f'"{etag}"' in known


def _wants_csv() -> bool:
    types = ("application/json", tables.MIMETYPE)
    return request.path.endswith(".csv") or (
        request.accept_mimetypes.best_match(types) == tables.MIMETYPE
    )
