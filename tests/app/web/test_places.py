"""Requests under way take places, and stuck ones keep nobody from an answer."""

import threading

import pytest

from app import waits
from app.factory import create_app
from tests.support.settings import make_settings
from tests.support.tokens import bearer

TREND = "/api/v1/analytics/tokens"


@pytest.fixture
def app(sqlite_url, monkeypatch):
    monkeypatch.setattr(waits, "PATIENCE_SECONDS", 0.1)
    app = create_app(make_settings(sqlite_url, WEB_THREADS="2"))
    yield app
    app.extensions["analytics"].database.dispose()


def test_stuck_requests_leave_health_and_a_refusal(app):
    """While all places are taken, a read is 503 with ``Retry-After``, and ``/health`` answers."""
    stuck, go_on = threading.Barrier(3), threading.Event()

    def hang():
        stuck.wait()
        go_on.wait()
        return "done"

    app.add_url_rule("/hang", view_func=hang)
    threads = [threading.Thread(target=lambda: app.test_client().get("/hang")) for _ in range(2)]
    for thread in threads:
        thread.start()
    stuck.wait()
    try:
        refused = app.test_client().get(TREND, headers=bearer())
        assert (refused.status_code, refused.json["code"]) == (503, "SERVICE_UNAVAILABLE")
        assert refused.headers["Retry-After"]
        assert app.test_client().get("/health").status_code == 200
    finally:
        go_on.set()
        for thread in threads:
            thread.join()
    assert app.test_client().get(TREND, headers=bearer()).status_code == 200


@pytest.mark.parametrize("path", [TREND, "/nowhere", "/signin", "/broken"])
def test_every_request_gives_its_place_back(app, path):
    """A place is given back after an answer, an error and a bug."""

    def break_down():
        raise RuntimeError

    app.add_url_rule("/broken", view_func=break_down)
    for _ in range(5):
        app.test_client().get(path)
    assert app.test_client().get(TREND, headers=bearer()).status_code == 200
