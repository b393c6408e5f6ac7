"""Tokens as gunicorn takes them: one header, and nothing that the log would repeat."""

import http.client
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import psycopg

from app.config.settings import ROOT
from tests.support.databases import conninfo
from tests.support.keys import signer
from tests.support.processes import PATIENCE_SECONDS, free_port, poll, process
from tests.support.settings import child_environ
from tests.support.tokens import bearer, token

READ = "/api/v1/analytics/tokens"


@contextmanager
def gunicorn(url, log):
    """The service on a port of its own; all that it prints goes to ``log``."""
    port = free_port()
    environ = child_environ(url, PORT=str(port))
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "wsgi:app"],
            cwd=ROOT,
            env=environ,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        poll(lambda: get(port, "/ready"), lambda answer: answer[0] == 200)
        yield port
        child.send_signal(signal.SIGTERM)
        assert child.wait(PATIENCE_SECONDS) == 0, log.read_text()
    finally:
        child.kill()
        child.wait()


def get(port, path, *credentials):
    """The status, the headers and the text of an answer to each header as it is given."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    try:
        connection.putrequest("GET", path)
        for value in credentials:
            connection.putheader("Authorization", value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, str(answer.headers), answer.read().decode()
    finally:
        connection.close()


def test_two_authorization_headers_are_401(sqlite_url, tmp_path):
    """A request with two Authorization headers gets 401, even if both are valid."""
    good, other = (bearer(name)["Authorization"] for name in ("org-a", "org-b"))
    with gunicorn(sqlite_url, tmp_path / "log") as port:
        assert get(port, READ, good)[0] == 200
        for pair in [(good, good), (good, other), ("Bearer x", good), (good, "Basic eDp5")]:
            status, headers, _ = get(port, READ, *pair)
            assert (status, "Bearer" in headers) == (401, True)
            assert get(port, READ, *reversed(pair))[0] == 401


def test_a_token_in_the_query_is_refused_and_not_logged(postgresql, tmp_path):
    """A token in the query string is refused and never logged."""
    text, log = token(), tmp_path / "log"
    query = f"?access_token={text}&token={text}"
    header = bearer()["Authorization"]
    database = postgresql.create()
    with gunicorn(postgresql.at(database), log) as port:
        answers = [get(port, f"{path}{query}") for path in (READ, "/no/such/path")]
        assert [status for status, *_ in answers] == [401, 404]
        postgresql.drop(database)
        answers += [get(port, f"{READ}{query}"), get(port, f"{READ}?access_token={text}", header)]
        assert [status for status, *_ in answers[2:]] == [401, 503]
    shown = log.read_text()
    assert "Booting worker" in shown
    for part in [text, *text.split(".")[1:]]:
        assert part not in shown
        assert all(part not in headers + body for _, headers, body in answers)


def test_a_token_is_nowhere_in_the_log_of_an_internal_error(postgresql_url, tmp_path):
    text, log = token(), tmp_path / "log"
    with gunicorn(postgresql_url, log) as port:
        with psycopg.connect(conninfo(postgresql_url)) as connection:
            connection.execute("ALTER TABLE daily_issuance RENAME issued TO counted")
        assert get(port, f"{READ}?access_token={text}", f"Bearer {text}")[0] == 500
    shown = log.read_text()
    assert "Traceback" in shown
    assert all(part not in shown for part in text.split("."))


def test_a_reload_reads_the_new_key_file(sqlite_url, tmp_path):
    """A reload of gunicorn reads the new key file and refuses no connection."""
    before, after = signer("ES256", "before"), signer("ES256", "after")
    file, port = tmp_path / "key.pem", free_port()
    file.write_text(before.pem)
    environ = child_environ(sqlite_url, PORT=str(port), JWT_PUBLIC_KEY_FILE=str(file))

    def statuses():
        headers = [key.bearer()["Authorization"] for key in (before, after)]
        return [get(port, READ, header)[0] for header in headers]

    with process("gunicorn", "wsgi:app", environ=environ) as server:
        poll(lambda: get(port, "/ready"), lambda answer: answer[0] == 200)
        assert statuses() == [200, 401]
        file.write_text(after.pem)
        server.send_signal(signal.SIGHUP)
        give_up, new_ones = time.monotonic() + PATIENCE_SECONDS, 0
        while new_ones < 20:  # in a row, so that no worker has the old key
            assert time.monotonic() < give_up
            new_ones = new_ones + 1 if statuses() == [401, 200] else 0


def test_a_key_that_is_none_is_noticed_before_a_reload(sqlite_url, tmp_path):
    (tmp_path / "key.pem").write_text("nonsense")
    environ = child_environ(sqlite_url, JWT_PUBLIC_KEY_FILE=str(tmp_path / "key.pem"))
    check = [sys.executable, "-m", "gunicorn", "--check-config", "wsgi:app"]
    done = subprocess.run(
        check, cwd=ROOT, env=environ, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert b"JWT_PUBLIC_KEY_FILE is not" in done.stderr
    page = (ROOT / "docs" / "operate" / "runbook.md").read_text()
    assert "`gunicorn --check-config wsgi:app`" in page


MALFORMED = {
    "another version": "GET {path}?access_token={text} HTTP/9.9\r\n\r\n",
    "a space in the path": "GET {path}?access_token={text} x HTTP/1.1\r\n\r\n",
    "long": "GET {path}?access_token={text}{long} HTTP/1.1\r\n\r\n",
    "a length that is none": (
        "POST {path}?access_token={text} HTTP/1.1\r\nContent-Length: x\r\n\r\n"
    ),
    "a space before the colon": "GET / HTTP/1.1\r\nAuthorization : Bearer {text}\r\n\r\n",
    "a folded header": "GET / HTTP/1.1\r\nAuthorization: Bearer\r\n {text}\r\n\r\n",
    "a NUL": "GET / HTTP/1.1\r\nAuthorization: Bearer {text}\0\r\n\r\n",
    "not ASCII": "GET {path}?access_token={text}&agent=caf\xe9 HTTP/1.1\r\n\r\n",
    "no URL": "GET http://[::1?access_token={text} HTTP/1.1\r\n\r\n",
    "no version": "GET {path}?access_token={text}\r\n\r\n",
    "no colon": "GET / HTTP/1.1\r\nAuthorization Bearer {text}\r\n\r\n",
}


def send(port, request):
    """The status of the answer to a request in its own words."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS) as connection:
        connection.sendall(request.encode("latin-1"))
        return int(connection.makefile("rb").readline().split()[1])


def test_a_token_in_malformed_http_is_not_logged(sqlite_url, tmp_path):
    """A token in a malformed HTTP request is never logged."""
    log, texts = tmp_path / "log", {name: token() for name in MALFORMED}
    with gunicorn(sqlite_url, log) as port:
        for name, request in MALFORMED.items():
            sent = request.format(path=READ, text=texts[name], long="x" * 5000)
            assert (name, 400 <= send(port, sent) < 500) == (name, True)
    shown = log.read_text()
    assert shown.count("Invalid request") == len(MALFORMED)
    assert [name for name, text in texts.items() if text.split(".")[1] in shown] == []
