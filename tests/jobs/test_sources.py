"""The scheduler's sources: they run beside the rollup, and their metrics come from the database."""

import json
import subprocess
import sys
import threading
import urllib.request

import pytest
import sqlalchemy as sa
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from app.config.settings import ROOT
from app.dates import utc_now
from app.intake.events import Event
from app.intake.sources.positions import Spot, advance, create, note_failure
from app.storage.database import Database
from app.storage.tables import daily_issuance
from jobs.metrics import SourcesCollector
from tests.support.log_apis import SECRET, FakeProvider, serving
from tests.support.log_files import event_line
from tests.support.processes import free_port, poll, process
from tests.support.settings import child_environ, make_settings


def exposed(database):
    registry = CollectorRegistry()
    registry.register(SourcesCollector(database))
    return generate_latest(registry).decode()


def test_metrics_show_each_source(database):
    """Records by outcome, the lag behind the newest, and whether the last turn failed."""
    assert "analytics_source_records_total{" not in exposed(database)
    spot = create(database, Spot("audit", "host-1", "follow", "x"))
    events = [Event("org-a", "e", "a", utc_now())]
    spot, _ = advance(database, spot, "y", events, skipped=2, refused=3)
    note_failure(database, create(database, Spot("okta", "", "okta", "{}")), "status 403")
    text = exposed(database)
    for outcome, count in (("accepted", 1), ("duplicates", 0), ("skipped", 2), ("refused", 3)):
        labels = f'host="host-1",outcome="{outcome}",source="audit"'
        assert f"analytics_source_records_total{{{labels}}} {count}.0" in text
    assert 'analytics_source_failed{host="host-1",source="audit"} 0.0' in text
    assert 'analytics_source_failed{host="",source="okta"} 1.0' in text
    (lag,) = (line for line in text.splitlines() if line.startswith("analytics_source_lag"))
    assert 0 <= float(lag.split()[-1]) < 300
    assert 'analytics_source_read_timestamp_seconds{host="host-1",source="audit"}' in text


def test_an_unavailable_database_leaves_no_metrics(sqlite_url):
    database = Database(make_settings(sqlite_url).database_url)
    database.write(lambda connection: connection.execute(sa.text("DROP TABLE source_positions")))
    assert "analytics_source_records_total{" not in exposed(database)
    database.dispose()


@pytest.mark.slow
def test_the_scheduler_reads_the_sources_of_a_file(database_url, tmp_path):
    """A dead source and a hanging one delay neither the others nor the rollup."""
    log, secret, file = tmp_path / "a.log", tmp_path / "secret", tmp_path / "sources.toml"
    log.write_bytes(event_line("e1") + event_line("e2"))
    secret.write_text(SECRET)
    hanging = threading.Event()
    with serving(FakeProvider("okta")) as okta, serving(FakeProvider("okta")) as dead:
        okta.add(20)
        dead.script = [lambda _: hanging.wait() and None] * 9
        pulled = 'kind = "pull"\nprovider = "okta"\norganization = "org-a"\n'
        file.write_text(
            '[[source]]\nkind = "follow"\nname = "log"\npath = "a.log"\nformat = "ndjson"\n'
            f'[[source]]\n{pulled}name = "okta"\nurl = "{okta.url}"\nsecret_file = "secret"\n'
            f'[[source]]\n{pulled}name = "dead"\nurl = "{dead.url}"\nsecret_file = "secret"\n'
            f'[[source]]\n{pulled}name = "closed"\nurl = "http://127.0.0.1:{free_port()}"\n'
            'secret_file = "secret"\n'
            f'[[source]]\nkind = "follow"\nname = "folder"\npath = "{tmp_path}"\n'
            'format = "ndjson"\n'
        )
        bind = f"127.0.0.1:{free_port()}"
        environ = child_environ(
            database_url, SOURCES_FILE=str(file), ROLLUP_INTERVAL_SECONDS="1", METRICS_BIND=bind
        )
        database = Database(make_settings(database_url).database_url)
        with process("jobs", environ=environ) as child:
            poll(lambda: counted(database), lambda found: found == 22)
            text = poll(lambda: scraped(bind), lambda found: 'source="folder"} 1.0' in found)
            output = child.log.read_text()
            print(output)
            hanging.set()
        database.dispose()
    assert 'outcome="accepted",source="okta"} 20.0' in text
    reasons = {line["source"]: line["reason"] for line in failures(output)}
    assert "is a folder" in reasons["folder"]
    assert SECRET not in output


def counted(database):
    with database.reading() as connection:
        return connection.scalar(sa.select(sa.func.sum(daily_issuance.c.issued))) or 0


def scraped(bind):
    with urllib.request.urlopen(f"http://{bind}/metrics", timeout=10) as response:
        return response.read().decode()


def failures(output):
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return [line for line in lines if line["message"] == "source failed"]


@pytest.mark.slow
def test_the_scheduler_refuses_a_wrong_file_at_the_start(sqlite_url, tmp_path):
    """The message has line and reason, and the exit code is not 0."""
    file = tmp_path / "sources.toml"
    file.write_text('[[source]]\nkind = "follow"\npath = "a"\nformat = "x"\n')
    done = subprocess.run(
        [sys.executable, "-m", "jobs"],
        cwd=ROOT,
        env=child_environ(sqlite_url, SOURCES_FILE=str(file)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert f"error: SOURCES_FILE names {file}, line 4: format: must be one of" in done.stderr
