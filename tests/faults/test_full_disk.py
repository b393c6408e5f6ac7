"""A full disk: 503, no batch by halves, and well again once there is room. The disk is a
small tmpfs, which needs root to mount."""

import os
import shutil
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url

from tests.faults.jobs import count_the_rest
from tests.faults.ledger import Drift, drift_at
from tests.faults.service import READS, Forwarder, Service, eventually
from tests.support.databases import conninfo, migrate
from tests.support.postgresql import Server

MEGABYTE = 1024 * 1024


@contextmanager
def small_disk(folder: Path, megabytes: int):
    """A file system of its own in ``folder``."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a small tmpfs")
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"needs to mount a small tmpfs: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


class Filler:
    """A file that takes up room."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "filler"

    def fill(self, left: int) -> None:
        """Leave only so many bytes."""
        disk = os.statvfs(self._file.parent)
        with self._file.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, disk.f_bavail * disk.f_frsize - left)

    def give_way(self) -> None:
        self._file.unlink()


def fill_up(service, forwarder, filler, left):
    """Post until there is no room left, and then some more."""
    assert forwarder.post(service, 200).status == 202
    filler.fill(left)
    for _ in range(500):
        if forwarder.post(service, 200).status == 503:
            break
    refused = [forwarder.post(service, 200).status for _ in range(10)]
    assert 503 in refused, "there was room for everything"
    assert service.get("/health").status == 200


def heal(service, forwarder, children, url):
    """Once there is room, the same processes go on, and nothing was stored by halves."""
    assert forwarder.post(service).status == 202
    forwarder.redeliver(service)
    assert children.end(service.process) == 0
    count_the_rest(children)
    assert "Traceback" not in children.output()
    assert drift_at(url, forwarder.ledger) == Drift()


@pytest.fixture
def sqlite_disk(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    with small_disk(folder, 8):
        yield folder


def test_sqlite_on_a_full_disk_refuses_whole_batches_and_heals(sqlite_disk, workshop):
    url, filler, forwarder = f"sqlite:///{sqlite_disk}/a.db", Filler(sqlite_disk), Forwarder()
    migrate(url)
    children = workshop(url)
    service = Service(children)
    fill_up(service, forwarder, filler, left=MEGABYTE)
    assert children.run("flask", "rollup", "run") in (0, 1)  # it may find a little room
    assert all(service.read(report).status == 200 for report in READS)
    filler.give_way()
    heal(service, forwarder, children, url)


@pytest.fixture
def tablespace(cluster):
    """Room for one database; the log of changes lies elsewhere, as is advised."""
    folder = cluster.folder / "small"
    folder.mkdir()
    with small_disk(folder, 24):
        inside = folder / "inside"
        inside.mkdir()
        shutil.chown(inside, *owner(cluster.folder))
        with psycopg.connect(cluster.conninfo("postgres"), autocommit=True) as admin:
            admin.execute(f"CREATE TABLESPACE small LOCATION '{inside}'")
            yield folder
            admin.execute("DROP TABLESPACE small")
    folder.rmdir()


def test_a_full_tablespace_refuses_whole_batches(cluster, cluster_url, tablespace, workshop):
    """Without room for data PostgreSQL refuses whole batches, and recovers once it has room."""
    with psycopg.connect(cluster.conninfo("postgres"), autocommit=True) as admin:
        name = make_url(cluster_url).database
        admin.execute(f'ALTER DATABASE "{name}" SET TABLESPACE small')
        filler, forwarder, children = Filler(tablespace), Forwarder(), workshop(cluster_url)
        service = Service(children)
        fill_up(service, forwarder, filler, left=MEGABYTE)
        assert children.run("flask", "rollup", "run") in (0, 1)
        assert all(service.read(report).status == 200 for report in READS)
        filler.give_way()
        heal(service, forwarder, children, cluster_url)
        admin.execute(f'DROP DATABASE "{name}"')


@pytest.fixture
def cramped():
    """A cluster with everything on one small disk."""
    server = Server()
    data, aside = server.folder / "data", server.folder / "aside"
    data.rename(aside)
    data.mkdir()
    try:
        with small_disk(data, 120):
            subprocess.run(["cp", "-a", f"{aside}/.", str(data)], check=True)
            yield server
            server.stop(server.IMMEDIATE)
    finally:
        server.remove()


def test_a_full_disk_keeps_acknowledged_events(cramped, workshop):
    """Without room for its log it panics; somebody makes room and starts it again."""
    cramped.start()
    url = cramped.url("postgres")
    migrate(url)
    filler, forwarder, children = Filler(cramped.folder / "data"), Forwarder(), workshop(url)
    service = Service(children)
    assert forwarder.post(service).status == 202
    filler.fill(8 * MEGABYTE)  # half of what the log asks for next
    with suppress(psycopg.OperationalError), psycopg.connect(conninfo(url)) as admin:
        admin.execute("SELECT pg_switch_wal()")
    assert 503 in [forwarder.post(service).status for _ in range(20)]
    log = (cramped.folder / "postgres.log").read_text()
    assert "PANIC" in log
    assert "No space left on device" in log
    filler.give_way()
    cramped.stop(cramped.IMMEDIATE)  # in case that it started again by itself
    cramped.start()
    eventually(service.is_ready)
    heal(service, forwarder, children, url)


def owner(folder):
    status = folder.stat()
    return status.st_uid, status.st_gid
