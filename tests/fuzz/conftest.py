"""How long to fuzz, and the number of requests sent.

``FUZZ_EXAMPLES`` is the number of examples per test, few in ``make test``, many in ``make
fuzz``, which also asks for at least ``FUZZ_MINIMUM`` requests in all.
"""

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask, Response, request
from hypothesis import HealthCheck, settings

from app.factory import create_app
from tests.support.settings import NOW, make_settings

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "25"))
MINIMUM = int(os.environ.get("FUZZ_MINIMUM", "0"))

# The same cases every time in the short run, so that a red build is red again; others in the
# long one. No deadline: machines are noisy. No folder of examples in the tree.
fuzzing = settings(
    max_examples=EXAMPLES,
    derandomize=MINIMUM == 0,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)

sent: Counter[tuple[str, int]] = Counter()


@pytest.fixture(scope="session")
def service(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    """The service on a database of its own; every request it gets is counted."""
    path = tmp_path_factory.mktemp("fuzz") / "analytics.db"
    shutil.copy(sqlite_template, path)
    app = create_app(make_settings(f"sqlite:///{path}"), clock=lambda: NOW)
    app.config["PROPAGATE_EXCEPTIONS"] = False
    app.after_request(_count)
    yield app
    app.extensions["analytics"].database.dispose()


def _count(response: Response) -> Response:
    sent[f"{request.method} {request.endpoint or 'no route'}", response.status_code] += 1
    return response


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The requests that were sent, by route and status."""
    if not MINIMUM:
        return
    total = sum(sent.values())
    terminalreporter.section("requests sent")
    for (route, status), count in sorted(sent.items()):
        terminalreporter.line(f"{count:7}  {status}  {route}")
    terminalreporter.line(f"{total:7}  in all, at least {MINIMUM} wanted")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A long run that sent too little proves nothing."""
    if sum(sent.values()) < MINIMUM and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
