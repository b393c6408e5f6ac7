"""API reference: ``/api/v1/openapi.json`` and the page ``/docs``, both without a token."""

from typing import Any

import msgspec
from flask import Blueprint, Response, current_app

from app.web.api.openapi import document
from app.web.context import services
from app.web.responses import page_response

bp = Blueprint("docs", __name__)

MAX_AGE_SECONDS = 300


def _document() -> dict[str, Any]:
    return document(current_app, services().settings)


@bp.get("/api/v1/openapi.json")
def openapi() -> Response:
    """The OpenAPI document."""
    response = Response(msgspec.json.encode(_document()), mimetype="application/json")
    response.cache_control.public = True
    response.cache_control.max_age = MAX_AGE_SECONDS
    return response


@bp.get("/docs")
def page() -> Response:
    """The API reference as a page, without scripts."""
    return page_response("docs.html", api=_document())
