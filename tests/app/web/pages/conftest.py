"""Fixtures for sign-in: one scripted provider and one application for the tests of a file."""

from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
from flask import Flask

from app.factory import create_app
from app.storage.tables import page_sessions
from tests.support.pages import Browser
from tests.support.scripted_idp import ScriptedProvider
from tests.support.settings import NOW, make_settings


@pytest.fixture(scope="module")
def module_provider() -> Iterator[ScriptedProvider]:
    with ScriptedProvider() as provider:
        yield provider


@pytest.fixture
def provider(module_provider: ScriptedProvider) -> ScriptedProvider:
    """An identity provider that has not been told anything yet."""
    module_provider.reset()
    return module_provider


@pytest.fixture(scope="module")
def module_apps() -> Iterator[dict[tuple[tuple[str, str], ...], Flask]]:
    """An application for each set of variables, because making one takes a while."""
    apps: dict[tuple[tuple[str, str], ...], Flask] = {}
    yield apps
    for app in apps.values():
        app.extensions["analytics"].database.dispose()


@pytest.fixture
def visit_provider(
    module_apps: dict[tuple[tuple[str, str], ...], Flask], shared_sqlite_url: str
) -> Iterator[Callable[..., Browser]]:
    """As ``visit``. Nobody is signed in, and the service has not asked the provider yet."""

    def visit(**variables: str) -> Browser:
        key = tuple(sorted(variables.items()))
        if key not in module_apps:
            settings = make_settings(shared_sqlite_url, **variables)
            module_apps[key] = create_app(settings, clock=lambda: NOW)
            module_apps[key].config["PROPAGATE_EXCEPTIONS"] = False
        return Browser(module_apps[key].test_client())

    yield visit
    for app in module_apps.values():
        app.extensions.pop("analytics_provider", None)
        database = app.extensions["analytics"].database
        database.write(lambda connection: connection.execute(sa.delete(page_sessions)))
