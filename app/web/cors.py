"""CORS: lets pages of the origins in ``CORS_ORIGINS`` call the API."""

from flask import Flask, Response, request
from flask_cors import CORS

from app.config.settings import Settings

API = r"/api/v1/.*"
MAX_AGE_SECONDS = 600


def init_app(app: Flask, settings: Settings) -> None:
    """Answer preflights and add CORS headers for the origins of ``CORS_ORIGINS``.

    Credentials are not allowed: the API reads a token from its header, never from a cookie.
    """
    if not settings.cors_origins:
        return
    # Flask runs after_request functions in reverse, so this one runs after Flask-CORS's.
    app.after_request(_remove_without_origin)
    CORS(
        app,
        resources=API,
        origins=list(settings.cors_origins),
        methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
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
            "X-Escaped-Cells",
            "X-Request-Id",
            "traceparent",
        ],
        max_age=MAX_AGE_SECONDS,
    )
    app.before_request(_answer_preflight)


def _answer_preflight() -> Response | None:
    """Answer a preflight here: it has no token, and the routes require one."""
    is_preflight = "Access-Control-Request-Method" in request.headers
    if request.method == "OPTIONS" and is_preflight and request.path.startswith("/api/v1/"):
        return Response(status=204)
    return None


def _remove_without_origin(response: Response) -> Response:
    """Remove ``Access-Control-Allow-Origin`` from responses to requests without ``Origin``.

    Flask-CORS sends it in every response when only one origin is allowed.
    """
    response.vary.add("Origin")
    if not request.headers.get("Origin"):
        response.headers.pop("Access-Control-Allow-Origin", None)
    return response
