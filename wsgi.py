"""Composition root: the web application with the service's and the jobs' commands."""

import sys

from app.commands import db, demo, events, tokens
from app.errors import SettingsError
from app.factory import create_app
from jobs.commands import purge, rollup

try:
    app = create_app()
except SettingsError as error:
    sys.exit(f"error: {error}")

events.add_command(purge)
for group in (db, events, rollup, tokens, demo):
    app.cli.add_command(group)
