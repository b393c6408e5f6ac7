"""nginx, HAProxy and Caddy with the configuration of docs/operate/proxies.md, as it is written.

``PROXY_REQUESTS`` sets the number of requests for a longer trial.
"""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime

import pytest

from app.config.settings import ROOT
from tests.support.certificates import make_authority
from tests.support.load import Load
from tests.support.processes import PATIENCE_SECONDS, call, free_port, poll
from tests.support.settings import child_environ
from tests.support.tokens import bearer

PAGE = ROOT / "docs" / "operate" / "proxies.md"
NAME = "analytics.example.com"
REQUESTS = int(os.environ.get("PROXY_REQUESTS", "2000"))
# As long as a proxy may take to send requests to a web again: two checks, or nginx's fail_timeout.
NOTICE_SECONDS = 5
FORGED = "192.0.2.66"


def written(language):
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    return block


def nginx(folder, block, port, pem):
    """nginx's command; the block of the page is a file that its own configuration includes."""
    block = block.replace("listen 443", f"listen 127.0.0.1:{port}")
    block = re.sub(r"(ssl_certificate\S*\s+)/\S+;", rf"\1{pem};", block)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    user = "user root;" if os.geteuid() == 0 else ""
    file = folder / "nginx.conf"
    file.write_text(
        f"{user} daemon off; pid {folder}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; {paths} {block} }}"
    )
    return ["nginx", "-p", str(folder), "-c", str(file)]


def haproxy(folder, block, port, pem):
    block = block.replace("bind :443", f"bind 127.0.0.1:{port}")
    file = folder / "haproxy.cfg"
    file.write_text(re.sub(r"crt /\S+", f"crt {pem}", block))
    return ["haproxy", "-db", "-f", str(file)]


def caddy(folder, block, port, _pem):
    """Caddy's command; its certificate is its own, since no authority signs one for a test."""
    options = "{\nadmin off\nskip_install_trust\nlocal_certs\nauto_https disable_redirects\n}\n"
    file = folder / "Caddyfile"
    file.write_text(options + block.replace(NAME, f"{NAME}:{port}"))
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(file)]


PROXIES = [
    pytest.param(
        command,
        id=command.__name__,
        marks=pytest.mark.skipif(
            not shutil.which(command.__name__), reason=f"there is no {command.__name__}"
        ),
    )
    for command in (nginx, haproxy)
]


class Web:
    """A web that can be restarted on its port."""

    def __init__(self, url, folder, port):
        self.port = port
        self._log = folder / f"web-{port}.log"
        self._environ = child_environ(url, PORT=str(port), TRUSTED_PROXIES="1")

    def start(self):
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "wsgi:app"],
                cwd=ROOT,
                env=self._environ,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait(self):
        poll(lambda: call(f"http://127.0.0.1:{self.port}/ready"), lambda answer: answer[0] == 200)

    def restart(self):
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(PATIENCE_SECONDS) == 0
        self.start()
        self.wait()

    def end(self):
        """Stop the web; what it has logged."""
        self._process.terminate()
        self._process.wait(PATIENCE_SECONDS)
        return self._log.read_text()


class Connection(http.client.HTTPSConnection):
    """A connection to the proxy under the name on the page."""

    def connect(self):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        opened = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_SECONDS)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = context.wrap_socket(opened, server_hostname=NAME)


@contextmanager
def running(command, folder):
    """A proxy, which is ended with the block."""
    environ = os.environ | {"HOME": str(folder), "XDG_DATA_HOME": str(folder)}
    with (folder / "proxy.log").open("w+") as log:
        proxy = subprocess.Popen(command, env=environ, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield
            assert proxy.poll() is None, (folder / "proxy.log").read_text()
        finally:
            proxy.terminate()
            proxy.wait(PATIENCE_SECONDS)


class Service:
    """Two webs and a proxy in front of them."""

    def __init__(self, port, webs):
        self.port, self.webs = port, webs

    def ask(self, method, path, body=None, headers=None):
        with closing(Connection(NAME, self.port)) as connection:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, response.headers, response.read()


@pytest.fixture(params=PROXIES)
def service(request, tmp_path, postgresql_url):
    webs = [Web(postgresql_url, tmp_path, free_port()) for _ in range(2)]
    block = written(request.param.__name__)
    for number, web in enumerate(webs, 1):
        block = block.replace(f"10.0.0.1{number}:3000", f"127.0.0.1:{web.port}")
    found = Service(free_port(), webs)
    command = request.param(tmp_path, block, found.port, make_authority(tmp_path).server)
    with ExitStack() as ends:
        for web in webs:
            ends.callback(web.end)
            web.start()
        for web in webs:
            web.wait()
        ends.enter_context(running(command, tmp_path))
        poll(lambda: found.ask("GET", "/ready"), lambda answer: answer[0] == 200)
        yield found
    for web in webs:
        log = web.end()
        assert "Traceback" not in log, log


# The tests may run long after this module is imported.
WRITER = bearer(scope="events:write", exp=4_102_444_800) | {"Content-Type": "application/json"}


class Traffic(Load):
    """Clients that read and post on connections that stay open."""

    answered = 0

    def client(self):
        return closing(Connection(NAME, self.port))

    def send(self, connection, number):
        now = datetime.now(UTC).isoformat()
        event = {"id": f"event-{number}", "agentId": "agent", "issuedAt": now}
        try:
            if number % 4:
                connection.request("GET", "/api/v1/analytics/tokens", headers=WRITER)
            else:
                connection.request("POST", "/api/v1/events", json.dumps(event), WRITER)
            response = connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            raise
        self.answered += 1  # only roughly right, which is enough here
        if response.status != (200 if number % 4 else 202):
            self.failed.append((number, response.status))


@pytest.mark.timeout(1200)
def test_a_rolling_restart_fails_no_request(service):
    """Two webs are restarted in turn under load, and every request is answered."""
    restarts = 0
    with Traffic(service.port) as load:
        while restarts < 4 or load.answered < REQUESTS:
            for web in service.webs:
                time.sleep(NOTICE_SECONDS)
                web.restart()
                restarts += 1
    print(f"{load.answered} requests, {restarts} restarts, failed: {len(load.failed)}")
    assert load.failed == []


def test_a_proxy_passes_on_what_the_page_says(service):
    """The service sees the client that the proxy saw, and answers a body that is too large."""
    status, headers, body = service.ask(
        "POST", "/api/v1/events", b" " * 9_000_000, WRITER | {"X-Forwarded-For": FORGED}
    )
    assert (status, headers["Content-Type"]) == (413, "application/json")
    assert json.loads(body)["details"] == {"maxBytes": 8 * 1024 * 1024}
    large = json.dumps(
        [
            {"id": str(number), "agentId": "a" * 200, "issuedAt": "2026-04-01T09:00:00Z"}
            for number in range(10_000)
        ]
    )
    assert len(large) > 1 << 21
    assert service.ask("POST", "/api/v1/events", large, WRITER)[0] == 202
    assert service.ask("GET", "/health", headers={"X-Forwarded-For": FORGED})[0] == 200
    logs = "".join(web.end() for web in service.webs)
    assert '"client":"127.0.0.1"' in logs
    assert FORGED not in logs


@pytest.mark.skipif(not shutil.which("caddy"), reason="there is no caddy")
def test_caddy_accepts_its_configuration(tmp_path):
    """The page has a configuration for Caddy as well, which its own check accepts."""
    *_, file = caddy(tmp_path, written("caddy"), free_port(), None)
    environ = os.environ | {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)}
    check = ["caddy", "validate", "--adapter", "caddyfile", "--config", file]
    done = subprocess.run(check, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
