"""A database set up with the SQL of docs/operate/postgresql.md; only the names differ."""

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy.engine import make_url

from app.config.settings import ROOT
from app.storage.database import Database
from tests.support.databases import PostgreSQL, conninfo, migrate

PAGE = ROOT / "docs" / "operate" / "postgresql.md"
PASSWORD = "only-for-tests"
ROLES = ("owner", "web", "job", "idp")
ADMINISTRATOR = "administrator"
# Who runs a block, in the page's order; the migrations come after the first two.
BEFORE_SCHEMA = ("Database and roles", "Before PostgreSQL 15")
GRANTS = ("Web", "Jobs", "Identity provider")
SOURCES = "Sources"
ROW_SECURITY = "Row-level security"

_BLOCK = re.compile(
    r"^#+ (?P<heading>[^\n]+)$|^```sql\n(?P<sql>.*?)^```$", re.MULTILINE | re.DOTALL
)
# The database and its roles, but not the setting analytics.tenant_id.
_NAME = re.compile(rf"\banalytics(?=_(?:{'|'.join(ROLES)})\b|(?![\w.]))")


def blocks() -> list[tuple[str, list[str]]]:
    """Each SQL block of the page: the heading above it, and its statements."""
    found, heading = [], ""
    for match in _BLOCK.finditer(PAGE.read_text()):
        heading = match["heading"] or heading
        if match["sql"]:
            found.append((heading, [part for part in match["sql"].split(";") if part.strip()]))
    return found


class Deployment:
    """A fresh database, its four roles, and connections in any of them."""

    def __init__(self, postgresql: PostgreSQL) -> None:
        self.name = f"test_{uuid.uuid4().hex[:12]}"
        self._postgresql = postgresql
        self._opened: list[Database | psycopg.Connection[Any]] = []

    def set_up(self) -> None:
        """Everything on the page that is not a choice."""
        roles, public = BEFORE_SCHEMA
        self._execute(roles, self._postgresql.url)
        for role in ROLES:
            self.administer(f"ALTER ROLE {self.role(role)} PASSWORD '{PASSWORD}'")
        self.run(public, ADMINISTRATOR)
        migrate(self.url("owner"))
        for heading in GRANTS:
            self.run(heading)

    def run(self, heading: str, role: str = "owner") -> None:
        """Run the block under a heading in the deployment's database."""
        self._execute(heading, self.url(role))

    def sql(self, heading: str) -> list[str]:
        """The statements of the one block under a heading, for this deployment."""
        (statements,) = (sql for title, sql in blocks() if title == heading)
        return [_NAME.sub(self.name, statement) for statement in statements]

    def role(self, role: str) -> str:
        return f"{self.name}_{role}"

    def url(self, role: str) -> str:
        url = make_url(self._postgresql.at(self.name))
        if role != ADMINISTRATOR:
            url = url.set(username=self.role(role), password=PASSWORD)
        return url.render_as_string(hide_password=False)

    def connect(self, role: str, **options: Any) -> psycopg.Connection[Any]:
        """A connection of psycopg's own, without transactions unless asked for."""
        options = {"autocommit": True, "application_name": role} | options
        connection = psycopg.connect(conninfo(self.url(role)), **options)
        self._opened.append(connection)
        return connection

    def database(self, role: str, **options: Any) -> Database:
        """The service's own way in."""
        database = Database(make_url(self.url(role)), **options)
        self._opened.append(database)
        return database

    def administer(self, statement: str) -> None:
        with psycopg.connect(conninfo(self._postgresql.url), autocommit=True) as connection:
            connection.execute(statement)

    def remove(self) -> None:
        for opened in self._opened:
            opened.dispose() if isinstance(opened, Database) else opened.close()
        self.administer(f"DROP DATABASE IF EXISTS {self.name} WITH (FORCE)")
        for role in ROLES:
            self.administer(f"DROP ROLE IF EXISTS {self.role(role)}")

    def _execute(self, heading: str, url: str) -> None:
        with psycopg.connect(conninfo(url), autocommit=True) as connection:
            for statement in self.sql(heading):
                connection.execute(statement)


@contextmanager
def deployed(postgresql: PostgreSQL) -> Iterator[Deployment]:
    """A deployment, removed at the end."""
    deployment = Deployment(postgresql)
    try:
        deployment.set_up()
        yield deployment
    finally:
        deployment.remove()
