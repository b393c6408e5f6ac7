"""Fixtures for pages and for their visitors."""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import select

from app.factory import create_app
from app.storage.database import Database
from app.storage.tables import agents
from tests.support.idp import Issuer
from tests.support.pages import Browser
from tests.support.settings import NOW, make_settings


@pytest.fixture
def visit(sqlite_url: str) -> Iterator[Callable[..., Browser]]:
    """A browser at the service with more settings."""
    apps = []

    def visit(**variables: str) -> Browser:
        apps.append(create_app(make_settings(sqlite_url, **variables), clock=lambda: NOW))
        apps[-1].config["PROPAGATE_EXCEPTIONS"] = False
        return Browser(apps[-1].test_client())

    yield visit
    for app in apps:
        app.extensions["analytics"].database.dispose()


@pytest.fixture
def browser(visit: Callable[..., Browser]) -> Browser:
    return visit()


@pytest.fixture
def issuer(request: pytest.FixtureRequest) -> Iterator[Issuer]:
    """An identity provider; its algorithm may be a parameter."""
    with Issuer(getattr(request, "param", "RS256")) as issuer:
        yield issuer


@pytest.fixture
def names(database: Database) -> Callable[[], dict[tuple[str, str], str | None]]:
    """Every stored name, by tenant and agent."""

    def names() -> dict[tuple[str, str], str | None]:
        with database.reading() as connection:
            rows = connection.execute(select(agents)).all()
        return {(row.tenant_id, row.agent_id): row.name for row in rows}

    return names
