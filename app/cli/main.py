"""The console script ``agentidp-analytics``: the commands of ``flask``, in any folder."""

from flask import Flask
from flask.cli import FlaskGroup


def _application() -> Flask:
    # Imported by name. Flask would load a path, and the current folder may have another wsgi.py.
    from wsgi import app  # noqa: PLC0415 - it reads the settings, and errors belong to a command

    return app


cli = FlaskGroup(
    name="agentidp-analytics",
    help="AgentIdP Analytics: token issuance analytics.",
    create_app=_application,
    add_default_commands=False,
    add_version_option=False,
)


def main() -> None:
    """Run a command."""
    cli.main(prog_name=cli.name)
