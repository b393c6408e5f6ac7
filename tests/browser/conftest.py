"""Fixtures: one browser for all tests, and a new person at it for each."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from selenium.webdriver import Chrome

from tests.browser.chromium import NoBrowser, find, started
from tests.browser.person import Person
from tests.browser.serving import Site, fill


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chrome]:
    try:
        find()
    except NoBrowser as missing:
        (pytest.fail if os.environ.get("REQUIRE_BROWSER") == "1" else pytest.skip)(str(missing))
    with started() as browser:
        yield browser


@pytest.fixture
def serve(sqlite_url: str) -> Iterator[Callable[..., Site]]:
    """Starts a service with more settings; all of one test share its database."""
    with ExitStack() as stack:
        yield lambda **variables: stack.enter_context(Site(sqlite_url, **variables).serving())


@pytest.fixture
def site(serve: Callable[..., Site]) -> Site:
    """A service whose organization is empty, though runs come."""
    site = serve()
    site.roll_up()
    return site


@pytest.fixture
def filled(site: Site) -> Site:
    fill(site)
    return site


@pytest.fixture
def sit_down(chromium: Chrome) -> Iterator[Callable[[Site], Person]]:
    """Somebody at a service, in whose console nothing may be left at the end."""
    people: list[Person] = []

    def sit_down(site: Site) -> Person:
        people.append(Person(chromium, site))
        return people[-1]

    yield sit_down
    for person in people:
        assert person.console() == []
    chromium.get("about:blank")


@pytest.fixture
def person(site: Site, sit_down: Callable[[Site], Person]) -> Person:
    return sit_down(site)
