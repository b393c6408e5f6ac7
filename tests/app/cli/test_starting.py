"""The commands are imported when they are used, so that each starts quickly."""

import subprocess
import sys

import click
from flask import Flask

from app.config.settings import ROOT

UNNEEDED = (
    *("alembic", "app.auth.provider", "app.cli.demo", "app.cli.events", "app.factory"),
    *("app.storage.backup", "app.web"),
)
SCRIPT = f"""
import sys, click
from flask.cli import FlaskGroup
with click.Context(FlaskGroup()):
    import wsgi
commands = wsgi.app.cli
commands.get_command(click.Context(commands), "rollup")
print([name for name in {UNNEEDED} if name in sys.modules])
"""


def test_a_rollup_imports_nothing_of_other_commands() -> None:
    """Neither Alembic nor the formats of logs: their imports take half of the time."""
    shown = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (shown.stdout, shown.returncode) == ("[]\n", 0), shown.stderr


def test_every_command_is_found_by_its_name(service: Flask) -> None:
    """A group's commands may come from several modules."""
    context = click.Context(service.cli)
    listed = service.cli.list_commands(context)
    assert {"db", "events", "rollup"} <= set(listed)
    assert [
        getattr(service.cli.get_command(context, name), "name", None) for name in listed
    ] == listed
    events = service.cli.get_command(context, "events")
    assert isinstance(events, click.Group)
    assert {"import", "follow", "pull", "purge"} <= set(events.list_commands(context))
    assert service.cli.get_command(context, "events purge") is None
