"""An error is a page for browsers and JSON for programs, always without details."""

import pytest
from sqlalchemy.exc import OperationalError

from app.web.responses import PAGE_POLICY
from tests.support.pages import DASHBOARD, HTML, SIGNIN

PROGRAMS = [
    "",
    "*/*",
    "application/json",
    "application/json, text/html;q=0.9",
    "text/css,*/*;q=0.1",
]


@pytest.fixture
def failing(browser):
    """A browser at a dashboard that fails."""

    def failing(error):
        def fail():
            raise error

        browser.app.view_functions["dashboard.page"] = fail
        browser.sign_in()
        return browser.get(DASHBOARD)

    return failing


def check_page(answer, status):
    assert (answer.status_code, answer.mimetype) == (status, "text/html")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Content-Security-Policy"] == PAGE_POLICY
    assert "<h1>" in answer.text
    assert answer.headers["X-Request-Id"] in answer.text
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("path", ["/nowhere", "/signin/oidc", "/static/nowhere.css", "/signin/"])
def test_a_browser_is_shown_a_page_that_is_not_there(browser, path):
    answer = browser.get(path)
    check_page(answer, 404)
    assert "There is no such page." in answer.text


@pytest.mark.parametrize("accept", PROGRAMS)
def test_a_program_that_does_not_prefer_pages_gets_json(browser, accept):
    answer = browser.client.get("/nowhere", headers={"Accept": accept} if accept else {})
    assert (answer.status_code, answer.json["code"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize("path", ["/api/v1/nowhere", "/api/v1/events", "/metrics", "/health/x"])
def test_what_programs_ask_answers_them_even_through_a_browser(browser, path):
    answer = browser.client.get(path, headers=HTML)
    assert answer.status_code in (401, 404, 405)
    assert answer.json["code"]


def test_a_method_that_a_page_does_not_take_is_a_page(browser):
    answer = browser.client.delete(SIGNIN, headers=HTML)
    check_page(answer, 405)
    assert "GET" in answer.headers["Allow"]


def test_a_bug_behind_a_page_shows_nothing_of_itself(failing):
    answer = failing(RuntimeError("something broke"))
    check_page(answer, 500)
    assert "something broke" not in answer.text


def test_a_database_that_is_away_is_said_on_the_page(failing):
    answer = failing(OperationalError("SELECT secret", {}, ConnectionError(), True))
    check_page(answer, 503)
    assert "The database is unavailable; try again." in answer.text
    assert "secret" not in answer.text
    assert int(answer.headers["Retry-After"]) > 0


def test_what_a_browser_sends_is_escaped_on_an_error_page(browser):
    answer = browser.get("/<script>", headers=HTML | {"X-Request-Id": "<script>"})
    check_page(answer, 404)
    assert "<script" not in answer.text


def test_a_page_without_permission_names_scope_and_person(browser):
    """It says which scope is missing and who is signed in, and offers to sign out."""
    browser.sign_in(sub="ada")
    answer = browser.get(f"{DASHBOARD}?organizationId=org-b")
    check_page(answer, 403)
    for text in ("No permission", "analytics:read:any", "<bdi>ada</bdi>", 'action="/signout"'):
        assert text in answer.text
