"""The WSGI application, with the commands of the service and of the jobs."""

import sys

from app.cli.imported import ImportedCommands
from app.errors import SettingsError
from app.factory import create_app

COMMANDS = {
    "agents": "jobs.erasure.commands:agents",
    "audit": "app.cli.audit:audit",
    "clients": "app.cli.clients:clients",
    "db": "app.cli.database:db",
    "db copy": "jobs.commands:copy",
    "demo": "app.cli.demo:demo",
    "events": "app.cli.events:events",
    "events follow": "app.cli.sources:follow",
    "events pull": "app.cli.sources:pull",
    "events purge": "jobs.commands:purge",
    "findings": "app.cli.findings:findings",
    "findings recompute": "jobs.commands:recompute",
    "keys": "app.cli.keys:keys",
    "organizations": "jobs.erasure.commands:organizations",
    "report": "app.cli.report:report",
    "rollup": "jobs.commands:rollup",
    "sources": "app.cli.sources:sources",
    "tokens": "app.cli.tokens:tokens",
    "version": "app.cli.base:version",
}

try:
    app = create_app()
except SettingsError as error:
    sys.exit(f"error: {error}")

app.cli = ImportedCommands(COMMANDS)
