"""API keys under gunicorn: revoked in one process for all, and never in the log."""

import http.client

import pytest

from app.storage.database import Database
from tests.support.api_keys import created
from tests.support.command_line import ProcessRunner
from tests.support.processes import PATIENCE_SECONDS, free_port, poll, process
from tests.support.settings import child_environ, make_settings
from tests.system.test_deployed_tokens import MALFORMED, get, send

READ = "/api/v1/analytics/tokens"


@pytest.fixture
def keys(sqlite_url):
    """Whole keys, each of its own."""
    database = Database(make_settings(sqlite_url).database_url)
    yield lambda: created(database)[1]
    database.dispose()


def ask(port, path, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    try:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET", path, headers=names)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_no_key_is_in_any_line_of_the_service(sqlite_url, keys, log_format):
    """Neither the access log nor an error, a traceback or a broken request shows a key."""
    port = free_port()
    environ = child_environ(sqlite_url, PORT=str(port), LOG_LEVEL="DEBUG", LOG_FORMAT=log_format)
    command = ("gunicorn", "wsgi:app", "--access-logfile", "-")
    texts = [keys() for _ in range(8 + len(MALFORMED))]
    used, path, query, agent, referrer, request_id, method, basic, *malformed = texts
    with process(*command, environ=environ) as server:
        poll(lambda: get(port, "/ready"), lambda answer: answer[0] == 200)
        assert ask(port, READ, Authorization=f"Bearer {used}") == 200
        assert ask(port, f"/api/v1/keys/{path}") == 405
        assert ask(port, f"/{path.replace('_', '%5F')}/x") == 404
        assert ask(port, f"{READ}?key={query}") == 401
        assert ask(port, READ, User_Agent=agent, Referer=referrer) == 401
        assert ask(port, READ, X_Request_Id=request_id) == 401
        assert ask(port, READ, Authorization=f"Basic {basic}") == 401
        assert send(port, f"{method} {READ} HTTP/1.1\r\nHost: x\r\n\r\n") >= 400
        for text, request in zip(malformed, MALFORMED.values(), strict=True):
            assert send(port, request.format(path=READ, text=text, long="x" * 5000)) >= 400
        shown = server.log.read_text()
    assert "agk_***" in shown
    assert [text for text in texts if text[16:] in shown] == []


@pytest.mark.slow
def test_a_key_that_the_shell_revokes_stops_in_every_process(sqlite_url, keys):
    """Each worker stops within a minute, and says why."""
    port, text = free_port(), keys()
    environ = child_environ(sqlite_url, PORT=str(port), WEB_WORKERS="2")
    with process("gunicorn", "wsgi:app", environ=environ):
        poll(lambda: get(port, "/ready"), lambda answer: answer[0] == 200)
        assert [get(port, READ, f"Bearer {text}")[0] for _ in range(40)] == [200] * 40
        done = ProcessRunner(environ)("keys", "revoke", text[4:16])
        assert done.returncode == 0, done.stderr

        def statuses():
            return {get(port, READ, f"Bearer {text}")[0] for _ in range(40)}

        assert 401 in poll(statuses, lambda found: found == {401})
