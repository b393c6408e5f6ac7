"""Composition root: the web application with the service's and the jobs' commands."""

import sys

from app.commands import db, demo, events, tokens, version
from app.errors import SettingsError
from app.factory import create_app
from jobs.commands import copy, purge, rollup

try:
    app = create_app()
except SettingsError as error:
    sys.exit(f"error: {error}")

db.add_command(copy)
events.add_command(purge)
for command in (db, events, rollup, tokens, demo, version):
    app.cli.add_command(command)
