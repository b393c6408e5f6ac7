"""The database's schema version against the one this code was written for."""

from functools import cache
from pathlib import Path

import sqlalchemy as sa
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

MIGRATIONS = Path(__file__).resolve().parents[1] / "migrations"

_CURRENT: sa.Select[str] = sa.select(sa.column("version_num", sa.Text)).select_from(
    sa.table("alembic_version")
)


@cache
def expected_revision() -> str | None:
    """The newest migration that comes with this code."""
    return ScriptDirectory(MIGRATIONS).get_current_head()


def is_current(connection: Connection) -> bool:
    """Whether the database is reachable and has every migration."""
    try:
        return connection.scalars(_CURRENT).all() == [expected_revision()]
    except DBAPIError:
        return False
