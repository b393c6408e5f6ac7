"""The WSGI application, with the commands of the service and of the jobs."""

import sys

import click
from flask import Flask
from flask.cli import FlaskGroup

from app.cli.imported import ImportedCommands
from app.errors import SettingsError

COMMANDS = {
    "agents": "jobs.erasure.commands:agents",
    "audit": "app.cli.audit:audit",
    "budgets": "app.cli.budgets:budgets",
    "clients": "app.cli.clients:clients",
    "db": "app.cli.database:db",
    "db copy": "jobs.commands:copy",
    "demo": "app.cli.demo:demo",
    "events": "app.cli.events:events",
    "events follow": "app.cli.sources:follow",
    "events pull": "app.cli.sources:pull",
    "events purge": "jobs.commands:purge",
    "findings": "app.cli.findings:findings",
    "findings recompute": "jobs.findings.commands:recompute",
    "keys": "app.cli.keys:keys",
    "organizations": "jobs.erasure.commands:organizations",
    "report": "app.cli.report:report",
    "rollup": "jobs.counting.commands:rollup",
    "rollup rebuild": "jobs.recount.commands:rebuild",
    "rollup resume": "jobs.recount.commands:resume",
    "rollup verify": "jobs.recount.commands:verify",
    "sources": "app.cli.sources:sources",
    "tokens": "app.cli.tokens:tokens",
    "version": "app.cli.base:version",
    "webhooks": "app.cli.webhooks:webhooks",
    "webhooks deliver": "jobs.commands:deliver",
}


def _application() -> Flask:
    """The service; only an application without routes for the commands above.

    A command that needs routes, as ``flask routes``, has loaded this module in a context of its
    own. The others start in a third of the time.
    """
    context = click.get_current_context(silent=True)
    if context is not None and isinstance(context.command, FlaskGroup):
        return Flask("app")
    from app.factory import create_app  # noqa: PLC0415 - as the docstring says

    return create_app()


try:
    app = _application()
except SettingsError as error:
    sys.exit(f"error: {error}")

app.cli = ImportedCommands(COMMANDS)
