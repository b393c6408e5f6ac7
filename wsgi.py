"""The WSGI application, with the commands of the service and of the jobs."""

import sys

from app.cli.base import version
from app.cli.database import db
from app.cli.demo import demo
from app.cli.events import events
from app.cli.keys import keys
from app.cli.sources import follow, pull, sources
from app.cli.tokens import tokens
from app.errors import SettingsError
from app.factory import create_app
from jobs.commands import copy, purge, rollup

try:
    app = create_app()
except SettingsError as error:
    sys.exit(f"error: {error}")

db.add_command(copy)
events.add_command(follow)
events.add_command(pull)
events.add_command(purge)
for command in (db, events, rollup, sources, tokens, keys, demo, version):
    app.cli.add_command(command)
