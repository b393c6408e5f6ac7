"""API reference: ``/api/v1/openapi.json`` and the page ``/docs``, both without a token."""

import json
from functools import cache, lru_cache
from typing import Any

import msgspec
from flask import Blueprint, Flask, Response, current_app, render_template, request
from markupsafe import Markup, escape

from app.web.api.openapi import document
from app.web.api.operations import operations
from app.web.api.reference import SERVER, contents
from app.web.context import services
from app.web.responses import html_response

bp = Blueprint("docs", __name__)

MAX_AGE_SECONDS = 300
# A proxy names the path below which the service is. Pages are kept for so many of these.
MOST_PATHS = 8

_CODE = Markup("<code>{}</code>")
_DOCUMENT, _PAGE = "analytics_openapi", "analytics_docs"


def init_app(app: Flask) -> None:
    """Build the document and the page at the first call only."""

    def page(_root: str) -> str:
        api = _document()
        parts = contents(api, operations(services().settings))
        return render_template("docs.html", api=api, contents=parts)

    app.jinja_env.filters.update(prose=prose, example=example)
    app.extensions[_DOCUMENT] = cache(lambda: document(app, services().settings))
    app.extensions[_PAGE] = lru_cache(MOST_PATHS)(page)


def _document() -> dict[str, Any]:
    """The document, with the service's own address."""
    public = services().settings.public_url
    server = (request.script_root or "/") if public is None else str(public)
    built: dict[str, Any] = current_app.extensions[_DOCUMENT]()
    return built | {"servers": [{"url": server}]}


@bp.get("/api/v1/openapi.json")
def openapi() -> Response:
    """The OpenAPI document."""
    response = Response(msgspec.json.encode(_document()), mimetype="application/json")
    response.cache_control.public = True
    response.cache_control.max_age = MAX_AGE_SECONDS
    return response


@bp.get("/docs")
def page() -> Response:
    """The API reference as a page. Its script searches in it; without scripts it is whole."""
    text: str = current_app.extensions[_PAGE](request.script_root)
    return html_response(text.replace(SERVER, str(escape(request.root_url.rstrip("/")))))


def prose(text: str) -> Markup:
    """A text of the document as HTML, with the words between backquotes as code."""
    parts = enumerate(text.split("`"))
    return Markup("").join(_CODE.format(part) if at % 2 else part for at, part in parts)


def example(value: Any) -> str:
    """An example as text; JSON has a member a line."""
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
