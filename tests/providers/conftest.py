"""Fixtures: each provider, started once for all tests, and a service that trusts it."""

import os
from collections.abc import Callable, Iterator

import pytest
from selenium.webdriver import Chrome

from tests.browser.conftest import chromium, serve
from tests.browser.person import Person
from tests.browser.serving import Site
from tests.providers.running import DJANGO, OIDC_PROVIDER, MissingProviderError, Running, started

__all__ = ["chromium", "serve"]


def running(kind: str, factory: pytest.TempPathFactory) -> Iterator[Running]:
    try:
        with started(kind, factory.mktemp(kind)) as provider:
            yield provider
    except MissingProviderError as missing:
        (pytest.fail if os.environ.get("REQUIRE_PROVIDERS") == "1" else pytest.skip)(str(missing))


@pytest.fixture(scope="session")
def oidc_provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """node-oidc-provider."""
    yield from running(OIDC_PROVIDER, tmp_path_factory)


@pytest.fixture(scope="session")
def django_toolkit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """django-oauth-toolkit."""
    yield from running(DJANGO, tmp_path_factory)


@pytest.fixture(params=[OIDC_PROVIDER, DJANGO])
def provider(request: pytest.FixtureRequest) -> Running:
    """Each provider in turn, with the usual lifetime of tokens."""
    found: Running = request.getfixturevalue(request.param)
    found.tell("live", AccessToken=3600)
    return found


@pytest.fixture
def sit_down(chromium: Chrome) -> Iterator[Callable[[Site], Person]]:
    """Somebody at a service, about which the console has nothing to say at the end.

    The provider's own pages load fonts from elsewhere, for example.
    """
    people: list[Person] = []

    def sit_down(site: Site) -> Person:
        people.append(Person(chromium, site))
        return people[-1]

    yield sit_down
    for person in people:
        assert [line for line in person.console() if person.site.url in line] == []
    chromium.get("about:blank")
