"""The client library in processes of its own: exit, fork, and what it imports."""

import signal
import subprocess
import sys

import pytest

from app.config.settings import ROOT
from tests.agentidp_analytics.conftest import KEY, FakeService

BEGIN = """
import os, signal, sys, time
from agentidp_analytics.client import Client, Limits
client = Client(sys.argv[1], sys.argv[2], limits=Limits(interval_seconds=0.05, exit_seconds=50))
"""


def start(fake: FakeService, script: str, *options: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, *options, "-c", BEGIN + script, fake.url, KEY],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(fake: FakeService, script: str, *options: str) -> tuple[str, str]:
    child = start(fake, script, *options)
    stdout, stderr = child.communicate(timeout=60)
    assert child.returncode == 0, stderr
    return stdout, stderr


def agents(fake: FakeService) -> list[str]:
    return sorted(event["agentId"] for event in fake.stored.values())


def test_the_exit_of_a_program_sends_what_is_left(fake):
    run(fake, "client.record_token('a'); client.record_token('b')")
    assert agents(fake) == ["a", "b"]


@pytest.mark.slow
def test_the_exit_is_not_held_up_by_a_service_that_hangs(fake):
    """The program ends in bounded time, and says how many events are lost."""
    fake.script = [lambda handler: fake.released.wait(60)] * 3
    stdout, stderr = run(
        fake,
        "client._limits = client._limits._replace(exit_seconds=0.5)\n"
        "client.record_token('a'); client.record_token('b'); time.sleep(0.2)\n"
        "import atexit; began = time.monotonic()\n"
        "atexit.register(lambda: print(time.monotonic() - began < 20))\n"
        "atexit.unregister(client.close); atexit.register(client.close)",
    )
    assert stdout == "True\n"
    assert "2 events were not sent before the end, and are lost" in stderr


@pytest.mark.slow
def test_a_handler_of_sigterm_that_exits_sends_what_is_left(fake):
    """gunicorn and most servers end in this way."""
    script = (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); client.record_token('a')\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    fake.script = [503]
    child = start(fake, script)
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGTERM)
        assert child.wait(60) == 0
    assert agents(fake) == ["a"]


def test_a_fork_sends_nothing_twice_and_loses_nothing(fake):
    """Parent and child send their own events, also while the parent's thread is at work."""
    run(
        fake,
        "for number in range(30): client.record_token(f'parent-{number:02}')\n"
        "time.sleep(0.06)\n"
        "for number in range(30): client.record_token(f'more-{number:02}')\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    assert client.counts.recorded == 0\n"
        "    for number in range(30): client.record_token(f'child-{number:02}')\n"
        "    assert client.flush(30)\n"
        "    assert client.counts.accepted == 30\n"
        "    os._exit(0)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "assert client.flush(30)\n"
        "assert client.counts.accepted == 60 and client.counts.duplicates == 0\n",
        "-W",
        "ignore::DeprecationWarning",
    )
    expected = [f"{name}-{n:02}" for name in ("child", "more", "parent") for n in range(30)]
    assert agents(fake) == expected
    arrived = [event["id"] for _, _, events in fake.requests for event in events]
    assert len(arrived) == len(set(arrived)) == 90


@pytest.mark.slow
def test_a_fork_while_the_lock_is_held_blocks_no_child(fake):
    """The child gets a lock of its own, since the thread that holds the old one is not there."""
    run(
        fake,
        "import threading\n"
        "held, done = threading.Event(), threading.Event()\n"
        "def hold():\n"
        "    with client._buffer._changed: held.set(); done.wait(60)\n"
        "threading.Thread(target=hold).start(); held.wait(60)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    signal.alarm(60); client.record_token('child'); client.close(30); os._exit(0)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "done.set()\n",
        "-W",
        "ignore::DeprecationWarning",
    )
    assert agents(fake) == ["child"]


def test_a_request_imports_no_module(fake):
    """A child that is forked during an import would wait for the import's lock for good."""
    fake.script, fake.retry_after = [503, 400], "Wed, 21 Oct 2015 07:28:00 GMT"
    stdout, _ = run(
        fake,
        "before = set(sys.modules)\n"
        "client.record_token('a'); assert client.flush(50)\n"
        "print(sorted(set(sys.modules) - before))",
    )
    assert stdout == "[]\n"


@pytest.mark.slow
def test_the_library_needs_nothing_but_python(fake):
    """It is imported, and works, without site-packages."""
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + BEGIN + "client.record_token('a')"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-W", "error", "-c", script, fake.url, KEY],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert agents(fake) == ["a"]
