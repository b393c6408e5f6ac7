"""Importing takes the same memory for any file."""

import subprocess
import sys

import pytest

from app.config.settings import ROOT
from app.intake.importer import SQLITE_CHUNK_EVENTS
from tests.support.settings import child_environ

pytestmark = pytest.mark.slow

MEASURE = """
import gzip, io, resource, sys, zlib
from datetime import UTC, datetime
from pathlib import Path
from sqlalchemy.engine import make_url
from app.storage.database import Database
from app.errors import ValidationError
from app.intake.importer import Importer

class Stream(io.RawIOBase):
    def __init__(self, blocks):
        self.blocks, self.rest = blocks, b""
    def readable(self):
        return True
    def readinto(self, buffer):
        while not self.rest:
            try:
                self.rest = next(self.blocks)
            except StopIteration:
                return 0
        size = min(len(buffer), len(self.rest))
        buffer[:size], self.rest = self.rest[:size], self.rest[size:]
        return size

def lines(count):
    for number in range(count):
        yield (
            '{"id":"00000000-0000-4000-8000-%012d","organizationId":"org-a",'
            '"agentId":"agent-%d","issuedAt":"2024-04-01T09:00:00Z"}\\n' % (number, number % 9)
        ).encode()

def rows(count):
    yield b"id,organizationId,agentId,issuedAt\\n"
    for number in range(count):
        yield b"%d,org-a,agent-1,2024-04-01T09:00:00Z\\n" % number

def endless(fill, megabytes):
    for _ in range(megabytes):
        yield fill * 1024 * 1024

def zipped(blocks):
    packer = zlib.compressobj(wbits=31)
    for block in blocks:
        yield packer.compress(block)
    yield packer.flush()

RECORD = (
    b'{"eventSource":"cognito-idp.amazonaws.com","eventName":"Token_POST","eventID":"%d",'
    b'"eventTime":"2024-04-01T09:00:00Z","additionalEventData":{"clientId":"agent-1",'
    b'"responseParameters":{"status":200.0},"userPoolId":"org-a"},"userAgent":"%s"}'
)

def document(count):
    yield b'{"Digest":"' + b"x" * 9_000_000 + b'","Records":['
    for number in range(count):
        yield (b"," if number else b"") + RECORD % (number, b"y" * 100)
    yield b"]}"

def quote(megabytes):
    yield b'id,organizationId,agentId,issuedAt\\n"'
    yield from (b"never closed " * 80_000 + b"\\n" for _ in range(megabytes))

def header(megabytes):
    yield from (b'"\\n",' * 262_144 for _ in range(megabytes))

def quotes(megabytes):
    yield b"id,organizationId,agentId,issuedAt\\n"
    yield from (b'"' * 1024 * 1024 for _ in range(megabytes))

def utf16(megabytes):
    yield b"\\xff\\xfe"
    yield from endless(b"x\\0", megabytes)

def peak():  # KiB; what getrusage says on Linux includes the parent before exec
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0])
    unit = 1024 if sys.platform == "darwin" else 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit

database = Database(make_url(sys.argv[1]))
stored = 0
for file_format, blocks in (("ndjson", lines(50_000)), (sys.argv[2], eval(sys.argv[3]))):
    importer = Importer(
        database=database, file_format=file_format, tenant_id=None, max_bytes=65536,
        clock=lambda: datetime.now(UTC), on_refused=lambda refused: None, on_chunk=lambda: None,
    )
    try:
        importer.load("stream", io.BufferedReader(Stream(blocks)))
    except ValidationError as error:
        assert len(str(error)) < 1000
    print(importer.totals.received, peak())
database.dispose()
"""


@pytest.mark.parametrize(
    ("file_format", "blocks", "received"),
    [
        pytest.param("ndjson", "lines(300_000)", 300_000, id="many lines"),
        pytest.param("csv", "rows(100_000)", 100_000, id="many rows"),
        pytest.param("ndjson", "endless(b'x', 128)", 1, id="an endless line"),
        pytest.param("ndjson", "zipped(endless(b' ', 256))", None, id="a gzip bomb"),
        pytest.param("cognito", "document(200_000)", 200_000, id="one document"),
        pytest.param("cognito", "zipped(document(200_000))", 200_000, id="one packed document"),
        pytest.param("cognito", "endless(b'[', 128)", 1, id="endless brackets"),
        pytest.param("cognito", "endless(b'{\"x\":[', 128)", 1, id="endless objects"),
        pytest.param("cognito", "endless(b' ', 128)", 0, id="endless spaces"),
        pytest.param("keycloak", "endless(b'x', 128)", 1, id="an endless line of text"),
        pytest.param("native", "endless(b'[{},', 128)", None, id="endless arrays"),
        pytest.param("csv", "quote(128)", None, id="a quote never closed"),
        pytest.param("csv", "zipped(endless(b',', 256))", None, id="a gzip bomb of cells"),
        pytest.param("csv", "zipped(header(128))", None, id="a gzip bomb of quoted cells"),
        pytest.param("csv", "zipped(quotes(128))", None, id="a gzip bomb of quotes"),
        pytest.param("ndjson", "zipped(utf16(128))", None, id="a gzip bomb of UTF-16"),
    ],
)
def test_memory_stays_flat(
    sqlite_url: str, file_format: str, blocks: str, received: int | None
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, sqlite_url, file_format, blocks],
        cwd=ROOT,
        env=child_environ(sqlite_url),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (small, before), (large, after) = (map(int, row.split()) for row in done.stdout.splitlines())
    assert small == SQLITE_CHUNK_EVENTS == 50_000
    assert received in (None, large)
    assert (after - before) / 1024 < 40, "MiB more for the larger import"
