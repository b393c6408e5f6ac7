"""Calls from pages of other origins: none, unless ``CORS_ORIGINS`` names them."""

from flask import Flask, Response, request
from flask_cors import CORS

from app.config.settings import Settings

API = r"/api/v1/.*"
MAX_AGE_SECONDS = 600


def init_app(app: Flask, settings: Settings) -> None:
    """Answer preflights and mark responses for the origins that are named.

    Without credentials: a token travels in its header, and cookies are for pages of our own.
    """
    if not settings.cors_origins:
        return
    app.after_request(_finish)  # the last to see a response: registered before CORS is
    CORS(
        app,
        resources=API,
        origins=list(settings.cors_origins),
        methods=["GET", "POST", "PUT"],
        allow_headers=[
            "Authorization",
            "Content-Type",
            "Content-Encoding",
            "If-None-Match",
            "X-Request-Id",
            "traceparent",
        ],
        expose_headers=[
            "ETag",
            "Last-Modified",
            "Retry-After",
            "WWW-Authenticate",
            "X-Request-Id",
            "traceparent",
        ],
        max_age=MAX_AGE_SECONDS,
    )
    app.before_request(_answer_preflight)


def _answer_preflight() -> Response | None:
    """A preflight carries no token, so it must not reach the routes, which demand one."""
    is_preflight = "Access-Control-Request-Method" in request.headers
    if request.method == "OPTIONS" and is_preflight and request.path.startswith("/api/v1/"):
        return Response(status=204)
    return None


def _finish(response: Response) -> Response:
    """Flask-CORS names a single origin to everybody; who sends none is told none."""
    response.vary.add("Origin")
    if not request.headers.get("Origin"):
        response.headers.pop("Access-Control-Allow-Origin", None)
    return response
