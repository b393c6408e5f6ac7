"""A known vulnerability stops the build, a database out of reach does not, and nothing is silent.

pip-audit itself asks here, of a loopback server in its database's place.
"""

import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from pip_audit._audit import Auditor
from pip_audit._dependency_source import DependencySourceError

from app.config.settings import ROOT
from tests import audit

SOUND = json.dumps({"vulnerabilities": []})
VULNERABLE = json.dumps(
    {
        "vulnerabilities": [
            {
                "id": "PYSEC-2026-1",
                "aliases": ["CVE-2026-1"],
                "fixed_in": ["1.0.1"],
                "summary": "",
            }
        ]
    }
)


@dataclass
class Database:
    """Answers (status, body) about a package, by default that it is sound; may hang until freed."""

    answers: dict[str, tuple[int, str]] = field(default_factory=dict)
    default: tuple[int, str] = (200, SOUND)
    asked: list[str] = field(default_factory=list)
    free: threading.Event = field(default_factory=threading.Event)
    address: str = ""

    def __post_init__(self) -> None:
        self.free.set()

    def answer(self, path: str) -> tuple[int, str]:
        _, _, name, version, _ = path.split("/")
        self.asked.append(f"{name}=={version}")
        self.free.wait(60)
        return self.answers.get(name, self.default)


def serving(database: Database) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = database.answer(self.path)
            self.send_response(status)
            self.send_header("Location", self.path)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_arguments: object) -> None:
            """Not among the tests' output."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False  # closing waits, so that none complains during a later test
    return server


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Database]:
    """What pip-audit reaches, whatever address it asks."""
    database = Database()
    server = serving(database)
    database.address = f"127.0.0.1:{server.server_port}"
    ask = requests.Session.request

    def ask_here(
        self: requests.Session, method: str, url: str, **options: object
    ) -> requests.Response:
        here = urlsplit(url)._replace(scheme="http", netloc=database.address).geturl()
        return ask(self, method, here, **options)

    monkeypatch.setattr(requests.Session, "request", ask_here)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(audit, "CACHE", tmp_path / "cache")
    threading.Thread(target=server.serve_forever, args=(0.05,)).start()
    yield database
    database.free.set()
    for thread in threading.enumerate():
        if thread.name == "audit":
            thread.join(30)
    server.shutdown()
    server.server_close()


@pytest.fixture
def lock(tmp_path: Path) -> Callable[..., Path]:
    """A lock file that pins ``pins``, with hashes."""

    def lock(*pins: str, name: str = "lock.txt") -> Path:
        path = tmp_path / name
        path.write_text("".join(f"{pin} \\\n    --hash=sha256:{'0' * 64}\n" for pin in pins))
        return path

    return lock


def refused(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closing:
        monkeypatch.setattr(database, "address", f"127.0.0.1:{closing.getsockname()[1]}")


def nameless(_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_arguments: object, **_options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)


def hanging(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    database.free.clear()
    monkeypatch.setattr(audit, "ANSWER_SECONDS", 0.2)


def without_end(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    database.free.clear()
    monkeypatch.setattr(audit, "SECONDS", 0.2)


def test_sound_packages_pass(database, lock, capsys):
    assert audit.main([lock("one==1.0", "two==2.0")]) == 0
    shown = capsys.readouterr()
    assert "no known vulnerability in 2 of 2 packages" in shown.out
    assert shown.err == ""
    assert database.asked == ["one==1.0", "two==2.0"]


def test_a_known_vulnerability_fails_and_is_named_with_its_fix(database, lock, capsys):
    database.answers["two"] = (200, VULNERABLE)
    assert audit.main([lock("one==1.0", "two==1.0")]) == 1
    report = capsys.readouterr().out
    assert re.search(r"^two +1\.0 +PYSEC-2026-1 +1\.0\.1 +CVE-2026-1$", report, re.MULTILINE)
    assert "one" not in report


@pytest.mark.parametrize("status", [403, 429, 500, 503])
def test_a_database_that_refuses_is_said_and_passes(database, lock, capsys, status):
    database.default = (status, "")
    assert audit.main([lock("one==1.0")]) == 0
    assert_not_checked(capsys, str(status))


def test_a_database_that_leads_in_circles_is_said_and_passes(database, lock, capsys):
    database.default = (302, "")
    assert audit.main([lock("one==1.0")]) == 0
    assert_not_checked(capsys, "redirecting")


def test_a_mirror_of_the_packages_alone_is_said_and_passes(database, lock, capsys):
    database.default = (404, "")
    assert audit.main([lock("one==1.0", "two==1.0")]) == 0
    assert_not_checked(capsys, "it knows none of 2 packages")


def test_a_page_in_place_of_an_answer_is_said_and_passes(database, lock, capsys):
    database.default = (200, "<html>Sign in to this network</html>")
    assert audit.main([lock("one==1.0")]) == 0
    assert_not_checked(capsys, "Expecting value")


AWAY = {
    refused: "refused",
    nameless: "not known",
    hanging: "timed out",
    without_end: "no answer within 0.2 s",
}


@pytest.mark.parametrize("away", AWAY)
def test_a_database_out_of_reach_is_said_and_passes(database, lock, capsys, monkeypatch, away):
    away(database, monkeypatch)
    assert audit.main([lock("one==1.0")]) == 0
    assert_not_checked(capsys, AWAY[away])


def assert_not_checked(capsys: pytest.CaptureFixture[str], reason: str) -> None:
    """One line on stderr, and nothing that reads like a clean result."""
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(
        "pip-audit: NOT CHECKED, the vulnerability database is out of reach: "
    )
    assert reason in shown.err
    assert shown.err.index("\n") == len(shown.err) - 1


def test_what_was_found_before_the_database_went_away_fails(database, lock, capsys):
    database.answers = {"one": (200, VULNERABLE), "two": (503, "")}
    assert audit.main([lock("one==1.0", "two==1.0")]) == 1
    shown = capsys.readouterr()
    assert "PYSEC-2026-1" in shown.out
    assert "NOT CHECKED" in shown.err


def test_a_package_that_the_database_does_not_know_is_named(database, lock, capsys):
    database.answers["two"] = (404, "")
    assert audit.main([lock("one==1.0", "two==1.0")]) == 0
    shown = capsys.readouterr()
    assert "NOT CHECKED, the vulnerability database does not know two" in shown.err
    assert "in 1 of 2 packages" in shown.out


def test_a_package_that_the_locks_pin_apart_is_asked_about_twice(database, lock):
    locks = [lock("one==1.0", "two==1.0"), lock("one==1.1", "two==1.0", name="other.txt")]
    assert audit.main(locks) == 0
    assert database.asked == ["one==1.0", "one==1.1", "two==1.0"]


@pytest.mark.parametrize(
    "text",
    ["", "# nothing\n", "one==1.0\n", "one>=1 --hash=sha256:00\n", "<<<<<<< ours\n"],
    ids=["empty", "comment", "no hash", "not pinned", "garbage"],
)
def test_a_broken_lock_fails_though_the_database_is_away(database, tmp_path, text):
    database.default = (503, "")
    path = tmp_path / "lock.txt"
    path.write_text(text)
    with pytest.raises(DependencySourceError):
        audit.main([path])


def test_a_broken_pip_audit_fails(database, lock, monkeypatch):
    def broken(*_arguments: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(Auditor, "audit", broken)
    with pytest.raises(RuntimeError, match="a defect"):
        audit.main([lock("one==1.0")])


def test_both_locks_are_asked_about_to_the_last_pin(database):
    assert audit.main() == 0
    pinned = {
        pin
        for file in ("requirements.txt", "requirements-test.txt")
        for pin in re.findall(r"^([\w-]+)(?:\[\w+\])?(==\S+)", (ROOT / file).read_text(), re.M)
    }
    assert sorted(database.asked) == sorted("".join(pin) for pin in pinned)


def run(*locks: Path, proxy: str) -> "subprocess.CompletedProcess[str]":
    kept = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
    return subprocess.run(
        [sys.executable, "-m", "tests.audit", *locks],
        cwd=ROOT,
        env=kept | {"HTTPS_PROXY": proxy, "https_proxy": proxy},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_tells_a_dead_proxy_from_a_broken_lock(lock, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as closing:
        proxy = f"http://127.0.0.1:{closing.getsockname()[1]}"
    away = run(lock("one==1.0"), proxy=proxy)
    assert (away.returncode, away.stdout) == (0, "")
    assert away.stderr.count("NOT CHECKED") == away.stderr.count("\n") == 1
    broken = run(tmp_path / "missing.txt", proxy=proxy)
    assert broken.returncode == 1
    assert "NOT CHECKED" not in broken.stderr
