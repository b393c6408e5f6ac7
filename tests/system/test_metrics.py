"""Metrics as Prometheus scrapes them from both processes, and the alerts that use them."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest
import yaml
from sqlalchemy.engine import make_url

from app.config.settings import ROOT
from app.dates import utc_now
from app.intake.events import Event
from app.intake.sources.positions import Spot, advance, create
from app.storage.database import Database
from tests.support.command_line import Runner
from tests.support.processes import PATIENCE_SECONDS, call, free_port, poll, process
from tests.support.settings import child_environ
from tests.support.tokens import bearer

ALERTS = ROOT / "docs" / "operate" / "alerts.yml"
DASHBOARD = ROOT / "docs" / "operate" / "grafana.json"
RULES = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
QUERIES = [
    target["expr"]
    for panel in json.loads(DASHBOARD.read_text())["panels"]
    for target in panel["targets"]
]
# What gunicorn gives the exporter to end.
EXPORTER_SECONDS = 5
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)


def scrape(port):
    """Samples by name and labels as they stand there."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return {(name, labels): float(value) for name, labels, value in _SAMPLE.findall(text)}


class Ports:
    """Where one service listens, and its environment."""

    def __init__(self, url, **variables):
        self.web, self.metrics, self.jobs = free_port(), free_port(), free_port()
        self.base = f"http://127.0.0.1:{self.web}"
        self.environ = child_environ(
            url,
            PORT=str(self.web),
            METRICS_BIND=f"127.0.0.1:{self.metrics}",
            JOBS_METRICS_BIND=f"127.0.0.1:{self.jobs}",
            ROLLUP_INTERVAL_SECONDS="1",
            **variables,
        )

    def wait(self):
        poll(lambda: call(f"{self.base}/ready"), lambda answer: answer[0] == 200)

    def total(self, name, labels=""):
        return scrape(self.metrics).get((name, labels), 0)

    def scraped(self, wanted):
        return poll(lambda: scrape(self.metrics), wanted)


def of_health(samples):
    return samples.get(
        ("analytics_http_requests_total", 'method="GET",route="/health",status="200"'), 0
    )


@pytest.fixture
def ports(sqlite_url):
    return Ports(sqlite_url)


def read_a_source(url):
    """A source has been read, as its metrics show."""
    database = Database(make_url(url))
    spot = create(database, Spot("audit", "host-1", "follow", ""))
    advance(database, spot, "{}", [Event("org-a", "followed", "agent-1", utc_now())])
    database.dispose()


def test_alerts_and_dashboard_use_names_that_are_scraped(postgresql_url):
    read_a_source(postgresql_url)
    ports = Ports(postgresql_url)
    with (
        process("gunicorn", "wsgi:app", environ=ports.environ),
        process("jobs", environ=ports.environ),
    ):
        ports.wait()
        call(f"{ports.base}/api/v1/analytics/tokens", bearer())
        writer = bearer(scope="events:write") | {"Content-Type": "application/json"}
        call(f"{ports.base}/api/v1/events", writer, b"[]")
        finished = ("analytics_rollup_last_finished_timestamp_seconds", "")
        ran = poll(lambda: scrape(ports.jobs), lambda samples: finished in samples)
        samples = [*ports.scraped(bool), *ran]
    names = {name for name, _ in samples}
    used = " ".join([*(rule["expr"] for rule in RULES), *QUERIES])
    assert set(re.findall(r"analytics_\w+", used)) <= names
    shown = values_shown(samples)
    assert [one for one in sorted(values_used(used)) if not is_shown(one, shown)] == []
    page = (ROOT / "docs" / "operate" / "monitoring.md").read_text()
    bases = {re.sub("_(bucket|sum|count)$", "", name) for name in names}
    ours = {name for name in bases if name.startswith("analytics_")}
    assert set(re.findall(r"`(analytics_\w+)`", page)) == ours


def is_shown(selected, shown):
    """Whether a value, which may be a regular expression, selects something that is scraped."""
    name, label, value = selected
    return any((name, label) == one[:2] and re.fullmatch(value, one[2]) for one in shown)


def values_used(queries):
    """Each value that a query selects by; but statuses, which come with their errors."""
    return {
        (name, label, value)
        for name, selector in re.findall(r"(analytics_\w+)\{([^}]*)\}", queries)
        for label, values in re.findall(r'(\w+)=~?"([^"]*)"', selector)
        if label != "status"
        for value in values.split("|")
    }


def values_shown(samples):
    return {
        (name, label, value)
        for name, labels in samples
        for label, value in re.findall(r'(\w+)="([^"]*)"', labels)
    }


@pytest.mark.quick
def test_each_alert_has_its_section_in_the_runbook():
    page = (ROOT / "docs" / "operate" / "runbook.md").read_text()
    assert [rule["alert"] for rule in RULES if f"### {rule['alert']}\n" not in page] == []


@pytest.mark.skipif(not shutil.which("promtool"), reason="there is no promtool")
@pytest.mark.quick
def test_prometheus_understands_alerts_and_queries(tmp_path):
    queries = [
        {"record": f"query:{number}", "expr": query.replace("$__rate_interval", "1m")}
        for number, query in enumerate(QUERIES)
    ]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": queries}]}))
    subprocess.run(["promtool", "check", "rules", str(ALERTS), str(file)], check=True)


def test_the_workers_numbers_are_added_up_and_outlive_them(ports):
    with process("gunicorn", "wsgi:app", environ=ports.environ) as server:
        ports.wait()
        size = "analytics_database_connections_max"
        ports.scraped(lambda samples: samples.get((size, "")) == 8)  # two workers of four threads
        for _ in range(20):
            call(f"{ports.base}/health")
        before = ports.scraped(lambda samples: of_health(samples) >= 20)
        workers = [
            child
            for child in psutil.Process(server.pid).children()
            if "app.telemetry.metrics_server" not in " ".join(child.cmdline())
        ]
        workers[0].kill()
        gone = workers[0].pid
        poll(
            lambda: [child.pid for child in psutil.Process(server.pid).children()],
            lambda pids: gone not in pids and len(pids) == 3,
        )
        after = ports.scraped(lambda samples: samples.get((size, "")) == 8)
        assert of_health(after) >= of_health(before)


def test_the_folder_that_is_given_is_emptied_at_the_start(sqlite_url, tmp_path):
    folder = tmp_path / "made" / "shared"
    ports = Ports(sqlite_url, PROMETHEUS_MULTIPROC_DIR=str(folder))
    for _ in range(2):
        with process("gunicorn", "wsgi:app", environ=ports.environ):
            ports.wait()
            call(f"{ports.base}/health")
            samples = ports.scraped(of_health)
            assert of_health(samples) == 1
            left = [path.name for path in folder.iterdir()]
            assert left
        Path(folder / "counter_1.db").write_bytes(b"")  # as left by a process that was killed


def test_a_folder_that_cannot_be_used_is_refused_by_name(sqlite_url, tmp_path):
    (tmp_path / "file").touch()
    ports = Ports(sqlite_url, PROMETHEUS_MULTIPROC_DIR=str(tmp_path / "file"))
    command = [sys.executable, "-m", "gunicorn", "wsgi:app"]
    done = subprocess.run(
        command, cwd=ROOT, env=ports.environ, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 1
    refusal, *_ = done.stderr.splitlines()  # of warnings, that gunicorn has not closed its own
    assert refusal == b"error: PROMETHEUS_MULTIPROC_DIR cannot be used: File exists"
    assert b"Traceback" not in done.stderr


def test_the_folder_of_the_database_is_refused(sqlite_url):
    """A metrics folder that holds the database is refused by name, and the database stays."""
    database = Path(make_url(sqlite_url).database)
    before = database.read_bytes()
    ports = Ports(sqlite_url, PROMETHEUS_MULTIPROC_DIR=str(database.parent))
    command = [sys.executable, "-m", "gunicorn", "wsgi:app"]
    done = subprocess.run(
        command, cwd=ROOT, env=ports.environ, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 1
    refusal, *_ = done.stderr.splitlines()
    assert refusal.startswith(b"error: PROMETHEUS_MULTIPROC_DIR holds other files (")
    assert database.read_bytes() == before


def test_the_folder_is_the_webs_though_everybody_is_told_of_it(sqlite_url, tmp_path):
    folder = tmp_path / "shared"
    ports = Ports(sqlite_url, PROMETHEUS_MULTIPROC_DIR=str(folder))
    status = Runner(ports.environ)("rollup", "status")
    assert (status.returncode, status.stderr) == (0, "")
    with process("jobs", environ=ports.environ):
        runs = ("analytics_rollup_runs_total", 'outcome="done"')
        poll(lambda: scrape(ports.jobs), lambda samples: samples[runs] > 0)
    assert not folder.exists()


def test_metrics_are_off_by_default(sqlite_url):
    """Metrics are off by default and never served on the service's own port."""
    port = free_port()
    environ = child_environ(sqlite_url, PORT=str(port))
    with process("gunicorn", "wsgi:app", environ=environ) as server:
        base = f"http://127.0.0.1:{port}"
        poll(lambda: call(f"{base}/health"), lambda answer: answer[0] == 200)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            call(f"{base}/metrics")
        master = psutil.Process(server.pid)
        listening = {
            connection.laddr.port
            for one in (master, *master.children(recursive=True))
            for connection in one.net_connections()
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening == {port}


def exporters(ports):
    """Processes that serve this service's metrics."""
    words = str(ports.metrics)
    return [
        one
        for one in psutil.process_iter(["cmdline"])
        if "app.telemetry.metrics_server" in (one.info["cmdline"] or [])
        and words in one.info["cmdline"]
    ]


def test_an_exporter_that_was_killed_comes_back_with_a_reload(ports):
    with process("gunicorn", "wsgi:app", environ=ports.environ) as server:
        ports.wait()
        call(f"{ports.base}/health")
        ports.scraped(of_health)
        (exporter,) = exporters(ports)
        exporter.kill()
        poll(lambda: [exporters(ports)], lambda found: found == [[]])
        assert call(f"{ports.base}/health")[0] == 200
        server.send_signal(signal.SIGHUP)
        assert of_health(ports.scraped(of_health)) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
def test_the_exporter_ends_with_gunicorn_however_that_ends(ports, number):
    server = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "wsgi:app"],
        cwd=ROOT,
        env=ports.environ,
        stdout=subprocess.DEVNULL,
    )
    try:
        ports.wait()
        poll(lambda: exporters(ports), bool)
        folder = Path(exporters(ports)[0].cmdline()[-1])
        # Both workers have written all that they begin with.
        poll(lambda: len(list(folder.glob("gauge_livemax_*.db"))), lambda files: files == 2)
        server.send_signal(number)
        server.wait(PATIENCE_SECONDS)
        poll(lambda: [exporters(ports)], lambda found: found == [[]])
        assert not list(folder.glob("*.db"))
    finally:
        server.kill()
        server.wait()


def test_gunicorn_serves_without_its_metrics_address(ports):
    """Gunicorn serves while its metrics address is in use, and uses the address once it is free."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports.metrics))
        taken.listen()
        with process("gunicorn", "wsgi:app", environ=ports.environ) as server:
            ports.wait()
            time.sleep(2)
            said = [json.loads(line) for line in server.log.read_text().splitlines()]
            (line,) = [line for line in said if line["logger"] == "app.telemetry.metrics_server"]
            assert (line["level"], "Address already in use" in line["message"]) == ("error", True)
            taken.close()
            ports.scraped(
                lambda samples: ("analytics_events_total", 'outcome="accepted"') in samples
            )


def test_a_waiting_exporter_ends_with_gunicorn(ports):
    """An exporter that waits for its address ends together with gunicorn."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports.metrics))
        taken.listen()
        with process("gunicorn", "wsgi:app", environ=ports.environ) as server:
            ports.wait()
            began = time.monotonic()
            server.send_signal(signal.SIGTERM)
            server.wait(PATIENCE_SECONDS)
            assert time.monotonic() - began < EXPORTER_SECONDS
        assert exporters(ports) == []


def test_the_jobs_run_without_their_metrics_address(ports):
    """The jobs run while their metrics address is in use, and use the address once it is free."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", ports.jobs))
        taken.listen()
        # For runs without events.
        with process("jobs", environ=ports.environ | {"LOG_LEVEL": "DEBUG"}) as jobs:
            poll(jobs.log.read_text, lambda text: text.count('"rollup"') > 1)
            assert jobs.log.read_text().count("Address already in use") == 1
            taken.close()
            poll(lambda: scrape(ports.jobs), bool)
