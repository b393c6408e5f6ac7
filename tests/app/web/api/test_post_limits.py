"""POST /api/v1/events: its limits are settings, and a hostile body costs little memory."""

import gzip
import io
import json
import subprocess
import sys

import pytest

from app.config.settings import ROOT
from app.factory import create_app
from tests.support.settings import NOW, child_environ, make_settings
from tests.support.tokens import bearer

EVENTS = "/api/v1/events"
NDJSON = "application/x-ndjson"
MOST_BYTES, MOST_EVENTS = 2048, 3


def lines(count, padding=""):
    event = {"agentId": "a", "issuedAt": "2026-04-01T09:00:00Z", "padding": padding}
    return b"".join(json.dumps(event | {"id": f"{n}"}).encode() + b"\n" for n in range(count))


@pytest.fixture
def post(database_url):
    """Send NDJSON to a service with small limits."""
    limits = {"MAX_BODY_BYTES": str(MOST_BYTES), "MAX_BATCH_EVENTS": str(MOST_EVENTS)}
    app = create_app(make_settings(database_url, **limits), clock=lambda: NOW)

    def post(body, **options):
        headers = bearer(scope="events:write") | options.pop("headers", {})
        return app.test_client().post(
            EVENTS, data=body, content_type=NDJSON, headers=headers, **options
        )

    yield post
    app.extensions["analytics"].database.dispose()


def check_too_large(response, details):
    assert (response.status_code, response.json["code"]) == (413, "PAYLOAD_TOO_LARGE")
    assert response.json["details"] == details


def test_the_limits_are_settings_and_what_fits_is_taken(post):
    fitting = lines(1, "x" * (MOST_BYTES - len(lines(1))))
    assert len(fitting) == MOST_BYTES
    assert post(fitting).status_code == 202
    assert post(lines(MOST_EVENTS)).status_code == 202


def test_too_many_events_are_413_with_the_limit(post):
    check_too_large(post(lines(MOST_EVENTS + 1)), {"maxEvents": MOST_EVENTS})


def test_too_many_bytes_are_413(post):
    """A body over the limit gets 413 with the limit: declared, chunked or compressed."""
    large = lines(1, "x" * MOST_BYTES)
    limit = {"maxBytes": MOST_BYTES}
    check_too_large(post(large), limit)
    chunked = {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
    check_too_large(post(None, input_stream=io.BytesIO(large), environ_overrides=chunked), limit)
    check_too_large(post(gzip.compress(large), headers={"Content-Encoding": "gzip"}), limit)


# Prints the status, and by how many KiB the process has grown at its peak.
MEASURE = """
import sys, zlib
from pathlib import Path
from app.config.settings import Settings
from app.factory import create_app
from tests.support.tokens import bearer

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

def bomb():
    packer = zlib.compressobj(9, wbits=31)
    zeros = bytes(1024 * 1024)
    return b"".join([*(packer.compress(zeros) for _ in range(1024)), packer.flush()])

MOST = 8 * 1024 * 1024
client = create_app(Settings.from_environ()).test_client()
def post(body, content_type, encoding=""):
    headers = bearer(scope="events:write") | {"Content-Encoding": encoding or "identity"}
    return client.post("/api/v1/events", data=body, content_type=content_type, headers=headers)
post(b"[]", "application/json")
body, content_type, encoding = eval(sys.argv[1])
before = peak()
print(post(body, content_type, encoding).status_code, peak() - before)
"""

HOSTILE = {
    "1 MB that unpacks to 1 GB": ("bomb(), 'application/json', 'gzip'", 50),
    "millions of items": (
        "b'[' + b'1,' * (MOST // 2 - 2) + b'1]', 'application/json', ''",
        50,
    ),
    "millions of short lines": ("b'1\\n' * (MOST // 2), 'application/x-ndjson', ''", 50),
    "millions of blank lines": ("b'\\n' * MOST, 'application/x-ndjson', ''", 50),
    "one line of blanks": ("b' ' * MOST, 'application/x-ndjson', ''", 50),
    "brackets": ("b'[' * MOST, 'application/json', ''", 50),
}


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is missing")
@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "megabytes"),
    [
        pytest.param(*case, id=name, marks=pytest.mark.quick if name == "millions of items" else ())
        for name, case in HOSTILE.items()
    ],
)
def test_a_hostile_body_is_refused_in_little_memory(sqlite_url, body, megabytes):
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, body],
        cwd=ROOT,
        env=child_environ(sqlite_url),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    status, grown = map(int, done.stdout.split())
    assert status in (400, 413)
    assert grown / 1024 < megabytes
