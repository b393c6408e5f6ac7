"""Responses: JSON, HTML pages, and reports with an ETag.

A report that is too long for the memory is made twice from one snapshot: first for its ETag and
its length, and then to be sent. So a client notices a body that was cut off.
"""

import hashlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from datetime import datetime
from typing import Any

import msgspec
from flask import Response, g, render_template, request

from app.reports.base import Batches
from app.web import params
from app.web.api.schemas import Tabular
from app.web.context import Snapshot
from app.web.csv_export import MIMETYPE as CSV
from app.web.csv_export import as_download, csv_of, file_name

JSON = "application/json"
# How long the sending of a long report may take. It keeps a snapshot of the database.
SENDING_SECONDS = 600
# No inline scripts or styles, nothing from other hosts, and no page inside a frame.
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

Pieces = Callable[[], Generator[bytes, None, None]]


def json_response(body: msgspec.Struct, status: int = 200) -> Response:
    """A body as JSON."""
    return Response(msgspec.json.encode(body), status, mimetype=JSON)


def page_response(template: str, **context: Any) -> Response:
    """An HTML page. It loads styles, scripts and images from this service only."""
    return html_response(render_template(template, **context))


def html_response(text: str) -> Response:
    """A rendered page, with the headers of every page."""
    response = Response(text, mimetype="text/html")
    response.headers["Content-Security-Policy"] = PAGE_POLICY
    # After sign-out the back button must not show a tenant's page from the browser's cache.
    response.headers["Cache-Control"] = "no-store" if "tenant_id" in g else "private, no-cache"
    return response


def report_response(body: msgspec.Struct, counted_at: datetime | None) -> Response:
    """A report as JSON or CSV, with an ETag; 304 when the client has the same body already.

    Shared caches must not store it, because it belongs to one tenant.
    """
    if isinstance(body, Tabular) and wants_csv():
        text = csv_of(body.point, bom=params.byte_order_mark(params.arguments()))
        data = b"".join(text.pieces([map(msgspec.structs.astuple, body.data)]))
        download = (_file(body), text.escaped)
    else:
        data, download = msgspec.json.encode(body), None
    etag = hashlib.sha1(data, usedforsecurity=False).hexdigest()
    if is_unchanged(etag):
        return _not_modified(etag)
    response = Response(data, mimetype=JSON if download is None else CSV)
    if download is not None:
        response = as_download(response, *download)
    return _tagged(response, etag, counted_at)


def long_report_response(body: Tabular, batches: Batches, snapshot: Snapshot) -> Response:
    """As :func:`report_response`, for a report whose points come in batches.

    Args:
        body: the report without its points; ``data`` is its last member.
        snapshot: of the batches. It is closed after the response was sent.
    """
    with snapshot.kept():
        if wants_csv():
            text = csv_of(body.point, bom=params.byte_order_mark(params.arguments()))
            response, etag = _sent_in_pieces(lambda: text.pieces(batches), CSV, snapshot)
            response = as_download(response, _file(body), text.escaped)
        else:
            response, etag = _sent_in_pieces(lambda: _json_pieces(body, batches), JSON, snapshot)
    if is_unchanged(etag):
        response.close()
        return _not_modified(etag)
    return _tagged(response, etag, batches.counted_at)


def long_csv_response(
    name: str, kind: type[msgspec.Struct], batches: Batches, snapshot: Snapshot
) -> Response:
    """Points in batches as a CSV file called ``name``. The snapshot is closed afterwards."""
    with snapshot.kept():
        text = csv_of(kind, bom=params.byte_order_mark(params.arguments()))
        response, _ = _sent_in_pieces(lambda: text.pieces(batches), CSV, snapshot)
    return as_download(response, name, text.escaped)


def csv_response(
    name: str, kind: type[msgspec.Struct], points: Iterable[msgspec.Struct]
) -> Response:
    """Points of one kind as a CSV file called ``name``."""
    text = csv_of(kind, bom=params.byte_order_mark(params.arguments()))
    data = b"".join(text.pieces([map(msgspec.structs.astuple, points)]))
    return as_download(Response(data, mimetype=CSV), name, text.escaped)


def _file(body: Tabular) -> str:
    """The name of a report's file, with ``from`` and ``to`` where the report has these."""
    days = params.optional_days(params.arguments()) if body.has_days else (None, None)
    return file_name(body.file, *days)


def _json_pieces(body: Tabular, batches: Batches) -> Generator[bytes, None, None]:
    """The JSON of a body, whose last member is the empty array ``data``, with points in it."""
    yield msgspec.json.encode(body).removesuffix(b"]}")
    separator = b""
    for rows in batches:
        points = [body.point(*row) for row in rows]
        yield separator + msgspec.json.encode(points)[1:-1]
        separator = b","
    yield b"]}"


def _sent_in_pieces(pieces: Pieces, mimetype: str, snapshot: Snapshot) -> tuple[Response, str]:
    """A response that is made while it is sent, and its ETag."""
    digest, length = hashlib.sha1(usedforsecurity=False), 0
    for piece in pieces():
        digest.update(piece)
        length += len(piece)
    response = Response(_within(SENDING_SECONDS, pieces, snapshot), mimetype=mimetype)
    response.content_length = length
    response.call_on_close(snapshot.close)  # also for HEAD, which sends no piece
    return response, digest.hexdigest()


def _within(seconds: float, pieces: Pieces, snapshot: Snapshot) -> Iterator[bytes]:
    """The pieces, as long as the client takes them within the time; closes the snapshot.

    Raises:
        TimeoutError: the client is too slow; the server then closes the connection.
    """
    end = time.monotonic() + seconds
    with closing(snapshot), closing(pieces()) as made:
        for piece in made:
            if time.monotonic() > end:
                raise TimeoutError("the client reads too slowly")
            yield piece


def _tagged(response: Response, etag: str, counted_at: datetime | None = None) -> Response:
    """The response, which no shared cache may store, with its ETag."""
    if counted_at is not None:
        response.last_modified = counted_at
    response.headers["Cache-Control"] = "private, no-cache"
    response.headers["Vary"] = "Accept, Authorization"
    response.set_etag(etag)
    return response


def _not_modified(etag: str) -> Response:
    # Without a type it would be HTML, which is compressed for clients that accept that.
    return _tagged(Response(status=304, mimetype=JSON), etag)


def is_unchanged(etag: str) -> bool:
    """Whether the client has the body with this ETag: ``If-None-Match`` lists it.

    Not ``make_conditional()``, which also compares ``Last-Modified``: the body changes at midnight
    even without a run.
    """
    # These ETags hold no quotation marks, so a search in the header's text is exact.
    known = request.environ.get("HTTP_IF_NONE_MATCH", "")
    return known == "*" or f'"{etag}"' in known


def wants_csv() -> bool:
    """Whether the client asks for CSV, by the path or the header."""
    preferred = request.accept_mimetypes.best_match((JSON, CSV))
    return request.path.endswith(".csv") or preferred == CSV
