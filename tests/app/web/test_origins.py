"""CORS headers for a request from an origin that is not configured."""

import pytest

from app.factory import create_app
from tests.support.settings import NOW, make_settings
from tests.support.tokens import bearer

READ = "/api/v1/analytics/tokens"
PAGE, OTHER_PAGE = "https://app.example.com", "https://other.example.com"


@pytest.fixture(params=[PAGE, f"{PAGE},{OTHER_PAGE}"], ids=["one named", "two named"])
def client(sqlite_url, request):
    app = create_app(make_settings(sqlite_url, CORS_ORIGINS=request.param), clock=lambda: NOW)
    yield app.test_client()
    app.extensions["analytics"].database.dispose()


@pytest.mark.parametrize("headers", [{}, {"Origin": ""}], ids=["absent", "empty"])
def test_without_an_origin_no_origin_is_allowed(client, headers):
    answer = client.get(READ, headers=bearer() | headers)
    assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("origin", [PAGE, "https://evil.example"])
def test_an_answer_varies_by_the_origin_whichever_it_is(client, origin):
    answer = client.get(READ, headers=bearer() | {"Origin": origin})
    assert {"Origin", "Authorization"} <= set(", ".join(answer.headers.getlist("Vary")).split(", "))
