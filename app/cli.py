"""What all commands share: errors as one line on stderr, results for people or as JSON."""

from collections.abc import Mapping
from typing import Any

import click
import msgspec
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from app.config import Settings
from app.db import Database, is_unavailable
from app.errors import ServiceError

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


class Group(click.Group):
    """A group whose commands never end in a traceback for bad input or an absent database."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ServiceError as error:
            raise click.ClickException(error.message) from error
        except SQLAlchemyError as error:
            if not is_unavailable(error) and not isinstance(error, DBAPIError):
                raise
            raise click.ClickException(database_problem(error)) from error


def open_database(settings: Settings) -> Database:
    """The configured database, for the running command, which closes it at its end."""
    database = Database(settings.database_url, pool_size=2)
    click.get_current_context().call_on_close(database.dispose)
    return database


def show(result: Mapping[str, Any], text: str, *, as_json: bool) -> None:
    """Print a command's result on stdout."""
    click.echo(msgspec.json.encode(result).decode() if as_json else text)


def warn(message: str) -> None:
    """Print a line on stderr; the command goes on."""
    click.echo(message, err=True)


def database_problem(error: SQLAlchemyError) -> str:
    """The server's own first line: SQLAlchemy's adds the statement and its parameters."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    lines = str(cause).strip().splitlines() or [type(error).__name__]
    hint = "" if "issuance" not in lines[0] and "rollup" not in lines[0] else _MIGRATE
    return f"database: {lines[0]}{hint}"


_MIGRATE = " (is the schema current? see `flask db current`)"
