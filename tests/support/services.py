"""The web application in this process, as tests call it."""

from collections.abc import Iterator
from contextlib import contextmanager

from flask import Flask

from app.config.settings import Settings
from app.factory import create_app
from tests.support.settings import NOW


@contextmanager
def service_of(settings: Settings) -> Iterator[Flask]:
    """A service at the instant ``NOW``. A test sees an internal error as a client does."""
    app = create_app(settings, clock=lambda: NOW)
    app.testing = True
    app.config["PROPAGATE_EXCEPTIONS"] = False
    yield app
    app.extensions["analytics"].database.dispose()
