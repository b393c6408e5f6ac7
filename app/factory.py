"""Composing the web application."""

from collections.abc import Callable
from datetime import datetime

from flask import Flask, Response

from app import auth
from app.config import Settings
from app.db import Database
from app.periods import utc_now
from app.views import analytics, errors, events, health, web
from app.views.bodies import MAX_BYTES


def create_app(
    settings: Settings | None = None, *, clock: Callable[[], datetime] = utc_now
) -> Flask:
    """The service as a Flask application.

    Args:
        settings: read from the environment when left out.
        clock: the present, aware, in UTC.

    Raises:
        SettingsError: a setting is unusable.
    """
    settings = settings or Settings.from_environ()
    app = Flask("app", static_folder=None)
    app.config.update(
        SECRET_KEY=settings.secret_key,
        MAX_CONTENT_LENGTH=MAX_BYTES + 1,  # the one byte tells "too large" from "full"
        PROVIDE_AUTOMATIC_OPTIONS=False,
    )
    # A path is right or 404: a redirect would be HTML, and drops the token in some clients.
    app.url_map.merge_slashes = False
    app.url_map.strict_slashes = True
    web.init_app(app, web.Services(settings, Database(settings.database_url), clock))
    errors.init_app(app)
    auth.init_app(app, settings)
    for module in (analytics, events, health):
        app.register_blueprint(module.bp)
    app.after_request(_harden)
    return app


def _harden(response: Response) -> Response:
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
