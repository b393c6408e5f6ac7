"""Secrets stay out of logs, errors and status; text from outside breaks neither line nor page."""

import json
import logging

import psycopg
import pytest

from app.factory import create_app
from app.reports import trend
from tests.support.command_line import Runner
from tests.support.databases import conninfo
from tests.support.settings import KEY, NOW, child_environ, make_settings
from tests.support.tokens import bearer, token

EVENTS = "/api/v1/events"
READ = "/api/v1/analytics/tokens"
PASSWORD = "hunter2-of-the-operator"
HOSTILE = 'a\nFAKE LINE\r\x1b[31m\x85\u2028"\t'
# Verbatim is verbatim: markup, line separators, quotes, right-to-left, astral.
TEXTS = [
    "<img src=x onerror=alert(1)>",
    "</script>\u2028\u2029",
    "\"'`\\",
    "\u202eabc",
    "\U0001f600",
]


@pytest.fixture
def failing(client, monkeypatch):
    """A client whose next read fails unexpectedly, with the request's own data in the error."""

    def fail(*_arguments, **_options):
        raise RuntimeError("something broke")

    monkeypatch.setattr(trend, "daily_tokens", fail)
    return client


@pytest.mark.parametrize("text", TEXTS)
def test_text_from_events_comes_back_verbatim_as_json(client, roll_up, text):
    event = {"id": text, "agentId": text, "issuedAt": NOW.isoformat()}
    sent = client.post(EVENTS, json=event, headers=bearer(scope="events:write"))
    assert (sent.status_code, sent.json["accepted"]) == (202, 1)
    roll_up()
    answer = client.get("/api/v1/analytics/agents", headers=bearer())
    assert answer.json["data"] == [{"agentId": text, "tokenCount": 1}]
    assert answer.mimetype == "application/json"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_an_unexpected_error_shows_nothing_and_logs_no_token(failing, caplog):
    credentials = token()
    answer = failing.get(
        f"{READ}?access_token={credentials}", headers={"Authorization": f"Bearer {credentials}"}
    )
    assert answer.status_code == 500
    assert answer.json == {"code": "INTERNAL_ERROR", "message": "an unexpected error occurred"}
    assert "something broke" in caplog.text
    for secret in (credentials, credentials.split(".")[2], KEY):
        assert secret not in caplog.text


def test_a_failing_statement_logs_no_parameters(database, caplog):
    with pytest.raises(Exception) as failure, database.reading() as connection:  # noqa: PT011 - each database has its own
        connection.exec_driver_sql("SELECT no_such_column", ())
    logging.getLogger("app").error("failed", exc_info=failure.value)
    assert "no_such_column" in caplog.text
    assert database.engine.hide_parameters


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://u:{PASSWORD}@127.0.0.1:1/analytics",
        f"postgresql://127.0.0.1:1/analytics?user=u&password={PASSWORD}",
    ],
    ids=["in the authority", "in the query"],
)
def test_a_database_that_is_away_shows_no_password(url, caplog):
    app = create_app(make_settings(url), clock=lambda: NOW)
    answers = [
        app.test_client().get(path, headers=bearer()) for path in ("/ready", READ, "/health")
    ]
    app.extensions["analytics"].database.dispose()
    assert [answer.status_code for answer in answers] == [503, 503, 200]
    shown = caplog.text + "".join(answer.text for answer in answers)
    assert PASSWORD not in shown


def test_status_shows_no_password_when_the_server_refuses_it(postgresql_url):
    flask = Runner(child_environ(postgresql_url))
    wrong = postgresql_url.replace("postgres@", f"nobody-here:{PASSWORD}@")
    assert wrong != postgresql_url
    for command in (("rollup", "status"), ("rollup", "status", "--json"), ("db", "current")):
        done = flask(*command, DATABASE_URL=wrong)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert PASSWORD not in done.stdout + done.stderr


def test_the_names_of_writers_break_no_line_of_the_status(postgresql_url):
    flask = Runner(child_environ(postgresql_url))
    with psycopg.connect(conninfo(postgresql_url), autocommit=True) as connection:
        connection.execute("BEGIN")
        connection.execute(
            "INSERT INTO issuance_events (tenant_id, event_id, agent_id, issued_at)"
            " VALUES ('org-a', 'e', 'a', now())"
        )
        connection.execute(f"PREPARE TRANSACTION '{HOSTILE}'")
        held = flask("rollup", "run", ROLLUP_WAIT_SECONDS="0")
        shown = flask("rollup", "status")
        as_json = flask("rollup", "status", "--json")
        connection.execute(f"ROLLBACK PREPARED '{HOSTILE}'")
    assert held.returncode == 75
    for text in (held.stderr, shown.stdout):
        assert "prepared transaction" in text
        assert not any(line.startswith("FAKE LINE") for line in text.splitlines())
        assert "\x1b" not in text
    assert json.loads(as_json.stdout)["writers"][0]["gid"] == HOSTILE
