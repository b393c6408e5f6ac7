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


# Prints the status, the KiB by which the process has grown at its peak, the longest work in ms
# during which no other thread ran.
MEASURE = """
import sys, threading, time, types, zlib
from pathlib import Path
from app.server.gunicorn_config import post_worker_init
from tests.support.tokens import bearer
from wsgi import app

def memory(name):
    return int(Path("/proc/self/status").read_text().split(name + ":")[1].split()[0])

def pack(*blocks):
    packer = zlib.compressobj(9, wbits=31)
    return b"".join([*map(packer.compress, blocks), packer.flush()])

def bomb():
    return pack(*[bytes(1024 * 1024)] * 1024)

def fill(unit, before=b"", after=b"", size=MOST, between=b","):
    # As many units as fit.
    count = (size - len(before) - len(after)) // len(unit + between)
    return before + (unit + between) * (count - 1) + unit + after

def event(member):
    return b'{"id":"e","agentId":"a","issuedAt":"2026-04-01T09:00:00Z","x":' + member + b"}"

def events(unit):
    # Events of 64 KiB.
    one = fill(unit, event(b"["[:1])[:-1], b"]}", 65536)
    return fill(one, b"[", b"]")

post_worker_init(types.SimpleNamespace(wsgi=app, alive=True))
client = app.test_client()
def send(body, content_type="application/json", encoding="identity", path="events", method="POST"):
    headers = bearer(scope="events:write agents:write") | {"Content-Encoding": encoding}
    return client.open(
        "/api/v1/" + path, method=method, data=body, content_type=content_type, headers=headers
    )
send(b"[]")
call = eval("dict(" + sys.argv[1] + ")")

longest = 0
def watch():
    global longest
    before = time.process_time()
    while True:
        time.sleep(0.001)
        longest, before = max(longest, time.process_time() - before), time.process_time()
Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
before = memory("VmRSS")
threading.Thread(target=watch, daemon=True).start()
time.sleep(0.01)
longest = 0
status, grown, stretch = send(**call).status_code, memory("VmHWM") - before, round(1000 * longest)

print(status, grown, stretch)
""".replace("MOST", str(8 * 1024 * 1024))

NDJSON_TYPE = f"content_type='{NDJSON}'"
HOSTILE = {
    "1 MB that unpacks to 1 GB": "body=bomb(), encoding='gzip'",
    "millions of items": "body=fill(b'1', b'[', b']')",
    "millions of empty objects": "body=fill(b'{}', b'[', b']')",
    "20 kB of gzip that are one event of numbers": (
        "body=pack(fill(b'1.2345678901234567e-300', event(b'[')[:-1], b']}')), encoding='gzip'"
    ),
    "8 kB of gzip that are one event of objects": (
        "body=pack(fill(b'{}', event(b'[')[:-1], b']}')), encoding='gzip'"
    ),
    "one event of empty lists": "body=fill(b'[]', event(b'[')[:-1], b']}')",
    "one event of a long string": "body=event(b'\"' + b'x' * 8_000_000 + b'\"')",
    "one event of escapes": "body=event(b'\"' + b'\\\\u00e9' * 1_390_000 + b'\"')",
    "one event of a huge number": "body=event(b'9' * 8_000_000)",
    "one event of many members": "body=fill(b'\"\":0', event(b'0')[:-1] + b',', b'}')",
    "nested objects": "body=fill(b'{\"a\":', between=b'')",
    "nested lists in an event": "body=event(b'[' * 4_000_000 + b']' * 4_000_000)",
    "invalid events in an array": "body=fill(b'{{},{}', b'[', b']')",
    "an invalid event of a long string": "body=event(b'\"' + b'\\\\n' * 4_000_000 + b'\"x')",
    "an array that is cut": "body=fill(event(b'[0,0]'), b'[')",
    "events of numbers": "body=events(b'1.2345678901234567e-300')",
    "events of long numbers": "body=events(b'9' * 4300)",
    "events of objects": "body=events(b'{}')",
    "events of lists": "body=events(b'[]')",
    "events of lists and a surrogate": (
        "body=events(b'[]').replace(b',[],[],[]]}', b',\"\\\\ud83d\"]}')"
    ),
    "events of nested lists": "body=events(b'[[[[[[0]]]]]]')",
    "events of strings": "body=events(b'\"\"')",
    "events of surrogates": "body=events(b'\"\\\\ud83d\"')",
    "events with an invalid end": "body=events(b'{},{},\"\\\\ud83d\",{}').replace(b']}', b'}')",
    "events of another type": "body=fill(b'[[]]', b'[', b']')",
    "10,000 events": "body=fill(event(b'[' + b'0,' * 390 + b'0]'), b'[', b']')",
    "millions of short lines": f"body=fill(b'1', between=b'\\n'), {NDJSON_TYPE}",
    "millions of objects on lines": f"body=fill(b'{{}}', between=b'\\n'), {NDJSON_TYPE}",
    "millions of blank lines": f"body=b'\\n' * 8_388_608, {NDJSON_TYPE}",
    "one line of blanks": f"body=b' ' * 8_388_608, {NDJSON_TYPE}",
    "lines of numbers": (
        "body=events(b'1.2345678901234567e-300')[1:-1].replace(b'},{', b'}\\n{'), "
        "content_type='application/x-ndjson'"
    ),
    "brackets": "body=b'[' * 8_388_608",
    "many gzip members": "body=pack(b'') * 400_000, encoding='gzip'",
    "names of numbers": "body=events(b'1.5e-300'), path='agents', method='PUT'",
    "names in an object of many members": (
        "body=fill(b'\"\":{}', b'{\"data\":[],', b'}'), path='agents', method='PUT'"
    ),
    "a listing of objects": (
        "body=fill(b'{}', b'{\"data\":[', b']}'), path='agents', method='PUT'"
    ),
    "a name among objects": (
        "body=fill(b'{}', b'{\"name\":\"n\",\"x\":[', b']}'), path='agents/a', method='PUT'"
    ),
}


# Each of these is sent in several formats.
RECORDS = {
    "a record of lists": "fill(b'[]', b'{\"records\":[{\"x\":[', b']}]}')",
    "records of lists": "events(b'[]')",
    "records of objects": "fill(b'{}', b'[', b']')",
    "nested records": "fill(b'{\"records\":[', between=b'')",
    "lines of lists": "events(b'[]')[1:-1].replace(b'},{', b'}\\n{')",
    "brackets as records": "b'[' * 8_388_608",
    "lines of quotes": "fill(b'\"' * 65_000, between=b'\\n')",
    "blank lines": "b'\\n' * 8_388_608",
}
HOSTILE |= {
    f"{name} as {file_format}": f"body={body}, path='events?format={file_format}'"
    for file_format in ("entra", "keycloak", "native")
    for name, body in RECORDS.items()
}


QUICK = ("millions of items", "8 kB of gzip that are one event of objects")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is missing")
@pytest.mark.slow
@pytest.mark.parametrize(
    "call",
    [
        pytest.param(case, id=name, marks=pytest.mark.quick if name in QUICK else ())
        for name, case in HOSTILE.items()
    ],
)
def test_a_hostile_body_costs_little(sqlite_url, call):
    """No body costs more than 100 MiB, or keeps other threads waiting for more than 100 ms."""
    for _ in range(3):  # a busy machine may disturb the measurement of time
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, call],
            cwd=ROOT,
            env=child_environ(sqlite_url),
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        status, grown, stretch = map(int, done.stdout.split())
        assert status in (200, 202, 400, 413)
        assert grown / 1024 < 100
        if stretch < 100:
            break
    assert stretch < 100, "ms"
