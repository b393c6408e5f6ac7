"""``Retry-After`` of a tenant beyond its rate limit."""

import time

import pytest

from app.factory import create_app
from tests.support.settings import NOW, make_settings
from tests.support.tokens import bearer

READ = "/api/v1/analytics/tokens"


@pytest.fixture
def client(sqlite_url):
    app = create_app(make_settings(sqlite_url, RATE_LIMIT="2/second"), clock=lambda: NOW)
    yield app.test_client()
    app.extensions["analytics"].database.dispose()


def test_who_is_refused_is_never_told_to_come_back_at_once(client):
    waits = []
    begun = time.monotonic()
    while time.monotonic() - begun < 1.5:
        answer = client.get(READ, headers=bearer())
        if answer.status_code == 429:
            waits.append(int(answer.headers["Retry-After"]))
    assert waits
    assert min(waits) > 0
