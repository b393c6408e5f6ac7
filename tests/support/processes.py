"""Processes of the service, and HTTP calls to them."""

import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from app.config.settings import ROOT

PATIENCE_SECONDS = 60


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def process(*command, environ, python=sys.executable, cwd=ROOT):
    """A child that is ended by SIGTERM and must then exit with 0; ``log`` is its output's file.

    The output goes to a file, because a full pipe without a reader blocks its writer.
    """
    with tempfile.NamedTemporaryFile("w") as log:
        child = subprocess.Popen(
            [python, "-m", *command],
            cwd=cwd,
            env=environ,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        child.log = Path(log.name)
        try:
            yield child
            child.send_signal(signal.SIGTERM)
            child.wait(PATIENCE_SECONDS)
            output = child.log.read_text()
            assert child.returncode == 0, output
            assert "Traceback" not in output
        finally:
            child.kill()
            child.wait()


def call(url, headers=None, body=None):
    """The status and the JSON of an answer."""
    request = urllib.request.Request(url, body, headers or {})
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as response:
        return response.status, json.load(response)


def poll(attempt, wanted):
    """Repeat until ``wanted(result)``; a server that does not answer yet is waited for."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            result = attempt()
        except (urllib.error.URLError, ConnectionError):
            result = None
        if result is not None and wanted(result):
            return result
        assert time.monotonic() < give_up, result
        time.sleep(0.1)
