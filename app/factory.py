"""create_app: puts the parts of the web application together."""

from collections.abc import Callable
from datetime import datetime

from flask import Flask, Response

from app.auth import api_key_verifier, client_organizations, tokens
from app.config.settings import Settings
from app.dates import utc_now
from app.storage.database import Database
from app.telemetry import metrics, tracing
from app.waits import Waits
from app.web import compression, context, cors, errors, own_address, rate_limit, request_log
from app.web.api import (
    agents,
    budgets,
    docs,
    events,
    findings,
    handshakes,
    health,
    keys,
    organizations,
    reports,
    share_links,
    webhooks,
)
from app.web.api import settings as organization_settings
from app.web.pages import agent as agent_page
from app.web.pages import dashboard, exports, files, formatting, sessions, shared, signin
from app.web.pages import day as day_page
from app.web.pages import finding as finding_page
from app.web.pages import organizations as organizations_page
from app.web.pages.settings import audit as audit_settings
from app.web.pages.settings import budgets as budget_settings
from app.web.pages.settings import keys as key_settings
from app.web.pages.settings import links as link_settings
from app.web.pages.settings import organization as general_settings
from app.web.pages.settings import webhooks as webhook_settings


def create_app(
    settings: Settings | None = None, *, clock: Callable[[], datetime] = utc_now
) -> Flask:
    """The service as a Flask application.

    Args:
        settings: read from the environment when left out.
        clock: returns the present time, in UTC and with its time zone.

    Raises:
        SettingsError: a setting is invalid.
    """
    settings = settings or Settings.from_environ()
    app = Flask("app.web")
    app.config.update(
        SECRET_KEY=settings.secret_key,
        SECRET_KEY_FALLBACKS=list(settings.secret_key_fallbacks),
        # One byte above the limit distinguishes a full body from one that is too large.
        MAX_CONTENT_LENGTH=settings.max_body_bytes + 1,
        PROVIDE_AUTOMATIC_OPTIONS=False,
    )
    # A path with a wrong slash gets 404. A redirect would be HTML, and some clients follow it
    # without the token.
    app.url_map.merge_slashes = False
    app.url_map.strict_slashes = True
    request_log.init_app(app)
    sessions.init_app(app, settings)
    waits = Waits(settings.web_threads)
    # One connection for each thread, because a request uses at most one.
    database = Database(
        settings.database_url,
        pool_size=settings.web_threads,
        overflow=0,
        row_security=settings.row_security,
        waits=waits,
    )
    metrics.watch_pool(database.engine, settings.web_threads)
    tracing.follow_statements(database.engine)
    services = context.Services(settings, database, clock, waits)
    if settings.sources_file is not None:
        # Most services need no such file, and the import takes a twentieth of the start.
        from app.intake.sources.entries import load_organizations  # noqa: PLC0415

        services.organizations = load_organizations(settings)
    context.init_app(app, services)
    formatting.init_app(app)
    errors.init_app(app)
    client_organizations.init_app(app, database)
    tokens.init_app(app, settings)
    api_key_verifier.init_app(app, database, clock)
    rate_limit.init_app(app, settings)
    handshakes.init_app(app)
    cors.init_app(app, settings)
    docs.init_app(app)
    for blueprint in (
        *(reports.bp, agents.bp, agents.naming, events.bp, keys.bp, health.bp, docs.bp),
        *(findings.bp, findings.marks, organization_settings.bp, budgets.bp, organizations.bp),
        *(signin.bp, signin.provider_bp, dashboard.bp, day_page.bp, agent_page.bp, finding_page.bp),
        *(exports.bp, files.bp, share_links.bp, shared.bp, organizations_page.bp),
        *(general_settings.bp, budget_settings.bp, link_settings.bp),
        *(webhook_settings.bp, key_settings.bp, audit_settings.bp),
        webhooks.bp,
    ):
        app.register_blueprint(blueprint)
    app.after_request(_harden)
    compression.init_app(app)
    # Flask documents this assignment. mypy objects, because it replaces a method.
    app.wsgi_app = tracing.follow_requests(app.wsgi_app)  # type: ignore[method-assign]
    own_address.init_app(app, settings)
    return app


def _harden(response: Response) -> Response:
    """Add security headers to every response; a page has its own Content-Security-Policy."""
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers.setdefault(
        "Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"
    )
    return response
