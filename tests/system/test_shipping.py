"""syslog-ng with the recipe of docs/identity-providers/shipping.md, against the service itself."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from urllib.error import HTTPError

import psycopg
import pytest

from app.config.settings import ROOT
from tests.support.databases import migrate
from tests.support.postgresql import Server
from tests.support.processes import PATIENCE_SECONDS, call, free_port, poll
from tests.support.settings import TENANT, child_environ

PAGE = ROOT / "docs" / "identity-providers" / "shipping.md"
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
SYSLOG_NG = shutil.which("syslog-ng", path=PATH)


def has_http_module():
    if SYSLOG_NG is None:
        return False
    shown = subprocess.run([SYSLOG_NG, "--version"], capture_output=True, text=True, check=True)
    (modules,) = re.findall(r"^Available-Modules: (.*)$", shown.stdout, re.MULTILINE)
    return "http" in modules.split(",")


pytestmark = pytest.mark.skipif(
    not has_http_module(),
    reason="there is no syslog-ng with its HTTP module; apt-get install syslog-ng-mod-http",
)


class Child:
    """A process that can be stopped, killed and started again; its output is kept."""

    def __init__(self, folder, name, command, environ):
        self.log = folder / f"{name}.log"
        self._command, self.environ = command, environ
        self._process = None

    def start(self):
        with self.log.open("a") as log:
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, env=self.environ, stdout=log, stderr=subprocess.STDOUT
            )

    def stop(self, number=signal.SIGTERM):
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(PATIENCE_SECONDS)
            self._process = None

    def restart(self):
        self.stop()
        self.start()

    def signal(self, number):
        self._process.send_signal(number)


class Web(Child):
    def flask(self, *words):
        command = [sys.executable, "-m", "flask", *words, "--json"]
        done = subprocess.run(
            command, cwd=ROOT, env=self.environ, capture_output=True, text=True, check=True
        )
        return json.loads(done.stdout)

    def new_key(self):
        return self.flask("keys", "create", "--organization", TENANT, "--scope", "events:write")


class Provider:
    """A provider that appends two lines for each token to its log, and rotates it by renaming."""

    def __init__(self, path):
        self.path = path
        self.ids = set()
        self._file = path.open("a")

    def issue(self, number):
        for _ in range(number):
            event = {
                "event": "grant.success",
                "at": datetime.now(UTC).isoformat(),
                "clientId": "agent-ü",
                "jti": hashlib.sha256(str(len(self.ids)).encode()).hexdigest(),
            }
            self.ids.add(event["jti"])
            # The same token once more: it is skipped.
            self.write(json.dumps(event | {"event": "client_credentials.issued"}))
            self.write(json.dumps(event, ensure_ascii=False))

    def write(self, line):
        self._file.write(line + "\n")
        self._file.flush()

    def rotate(self):
        """The provider writes a while into the renamed file, as one does until it reopens it."""
        self.path.rename(self.path.with_suffix(".log.1"))
        self.issue(20)
        self._file.close()
        self._file = self.path.open("a")

    def end(self):
        self._file.close()


@pytest.fixture
def cluster():
    cluster = Server().start()
    yield cluster
    cluster.remove()


@pytest.fixture
def web(cluster, tmp_path):
    url = cluster.url("postgres")
    migrate(url)
    port = free_port()
    environ = child_environ(url, PORT=str(port))
    child = Web(tmp_path, "web", [sys.executable, "-m", "gunicorn", "wsgi:app"], environ)
    child.url = f"http://127.0.0.1:{port}"
    child.start()
    yield child
    child.stop()


@pytest.fixture
def provider(tmp_path):
    provider = Provider(tmp_path / "token-events.log")
    yield provider
    provider.end()


@pytest.fixture
def shipper(web, provider, tmp_path):
    """syslog-ng with the recipe of the page; only names, places and the pause are changed."""
    page = PAGE.read_text()
    (recipe,) = re.findall(r"^```syslog-ng\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (key,) = re.findall(r'^@define analytics-key ".*"$', page, re.MULTILINE)
    for old, new in (
        ("https://analytics.example.com", web.url),
        ("/var/log/idp/token-events.log", str(provider.path)),
        ("time-reopen(10)", "time-reopen(1)"),
    ):
        assert recipe.count(old) == 1, old
        recipe = recipe.replace(old, new)
    keys = tmp_path / "key.conf"
    config = tmp_path / "syslog-ng.conf"
    config.write_text(f'@version: 3.35\n@include "{keys}"\n{recipe}')
    options = {
        "cfgfile": config,
        "persist-file": tmp_path / "persist",
        "control": tmp_path / "control",
        "pidfile": tmp_path / "pid",
    }
    command = [SYSLOG_NG, "--foreground", "--stderr", "--no-caps"]
    command += [f"--{name}={value}" for name, value in options.items()]
    child = Child(tmp_path, "syslog-ng", command, os.environ | {"PATH": PATH})
    child.use_key = lambda text: keys.write_text(key.replace("agk_EXAMPLE", text) + "\n")
    yield child
    child.stop(signal.SIGKILL)


def stored(cluster):
    with psycopg.connect(cluster.conninfo("postgres")) as connection:
        rows = connection.execute("SELECT event_id FROM issuance_events").fetchall()
    return [event_id for (event_id,) in rows]


def arrived(cluster, provider):
    """Wait until every token is stored, and check that nothing else is."""
    found = poll(lambda: stored(cluster), lambda found: set(found) >= provider.ids)
    assert sorted(found) == sorted(provider.ids)


def is_ready(web):
    with suppress(HTTPError):
        return call(f"{web.url}/ready")[0] == 200
    return False


def refusals(web, status):
    return web.log.read_text().count(f'"status":{status}')


@pytest.mark.timeout(600)
def test_syslog_ng_loses_and_doubles_nothing(cluster, web, provider, shipper):
    """Batches, broken lines, rotation, restarts, a stopped database and a revoked key."""
    poll(lambda: is_ready(web), bool)
    key = web.new_key()
    shipper.use_key(key["key"])
    provider.issue(1200)
    shipper.start()
    arrived(cluster, provider)
    assert web.log.read_text().count('"status":202') < 20  # in batches

    for line in ("not JSON", '{"event":"grant.success","at":""}', "x" * 100_000, '{"a":"\\ud800"}'):
        provider.write(line)
        provider.issue(10)
    arrived(cluster, provider)

    provider.rotate()
    provider.issue(200)
    arrived(cluster, provider)

    web.stop()
    provider.issue(600)
    web.start()
    provider.issue(600)
    arrived(cluster, provider)

    cluster.stop(Server.IMMEDIATE)
    provider.issue(600)
    poll(lambda: refusals(web, 503), bool)
    provider.rotate()
    provider.issue(300)
    cluster.start()
    arrived(cluster, provider)

    shipper.stop(signal.SIGKILL)
    provider.issue(300)
    shipper.start()
    provider.issue(300)
    shipper.restart()
    arrived(cluster, provider)

    web.flask("keys", "revoke", key["id"])
    # A key that is revoked may be good for a minute more.
    give_up = time.monotonic() + 3 * PATIENCE_SECONDS
    while not refusals(web, 401):
        assert time.monotonic() < give_up
        provider.issue(10)
        time.sleep(0.5)
    assert set(stored(cluster)) < provider.ids
    shipper.use_key(web.new_key()["key"])
    shipper.signal(signal.SIGHUP)
    arrived(cluster, provider)
    output = web.log.read_text() + shipper.log.read_text()
    assert "Traceback" not in output
    assert key["key"] not in output
