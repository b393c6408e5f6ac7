"""Fixtures for pages and for those who visit them."""

from collections.abc import Callable, Iterator

import pytest

from app.factory import create_app
from tests.app.pages import Browser
from tests.conftest import NOW, make_settings
from tests.idp import Issuer


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
