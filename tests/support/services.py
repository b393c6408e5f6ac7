"""The web application in this process, as tests call it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flask import Flask
from werkzeug.routing import Rule

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


def remember_routes() -> None:
    """Let each application after the first one take over the compiled routes.

    Compiling them takes three quarters of the time of ``create_app``, and thousands of tests make
    an application.
    """
    compiled: dict[tuple[object, ...], Any] = {}
    compile_builder: Callable[[Rule, bool], Any] = Rule._compile_builder

    def remembered(rule: Rule, append_unknown: bool = True) -> Any:
        if rule.host or rule.subdomain or rule.defaults:
            return compile_builder(rule, append_unknown)
        # What is compiled depends on the text of the rule alone.
        key = rule.rule, append_unknown
        if key not in compiled:
            compiled[key] = compile_builder(rule, append_unknown)
        return compiled[key]

    Rule._compile_builder = remembered  # type: ignore[method-assign]  # private, for tests only
