"""Requests in several threads are the first ones of a process, as after each restart."""

import subprocess
import sys

import pytest

from app.config.settings import ROOT

# The description of a struct is made of typing's aliases; here each takes its time, so that all
# threads are at it at once.
FIRST = """
import time, typing
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from app.intake.events import read_members
from app.intake.agent_names import parse_name, parse_names
from app.intake.organization_settings import parse_settings

def slowly(alias, usual=typing._AnnotatedAlias.__hash__):
    time.sleep(0.01)
    return usual(alias)

typing._AnnotatedAlias.__hash__ = slowly
together = Barrier(4)

def first(_):
    together.wait()
    return {reading}

with ThreadPoolExecutor(4) as threads:
    print(*set(map(str, threads.map(first, range(4)))))
"""
INSTANT = "2026-04-01T09:00:00Z"
EVENT = f'{{"id": "e", "agentId": "a", "issuedAt": "{INSTANT}"%s}}'
NAMED = EVENT % ', "agentName": "é"'


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reading", "found"),
    [
        pytest.param(
            f"read_members('{EVENT % ''}'.encode())",
            f"('e', 'a', '{INSTANT}', None, None)",
            id="plain event",
            marks=pytest.mark.quick,
        ),
        pytest.param(
            f"read_members('{NAMED}'.encode())",
            f"('e', 'a', '{INSTANT}', None, 'é')",
            id="any event",
        ),
        pytest.param("""parse_name(b'{"name": "n"}', 99).name""", "n", id="name"),
        pytest.param(
            """parse_settings(b'{"price": {"perThousand": 2, "currency": "EUR"}}', 99).price""",
            "Price(per_thousand=2.0, currency='EUR')",
            id="settings",
        ),
        pytest.param(
            """parse_names([b'{"agentId": "a", "name": "n"}'], 99)""", "{'a': 'n'}", id="names"
        ),
    ],
)
def test_threads_that_are_the_first_to_read_a_body(reading, found):
    done = subprocess.run(
        [sys.executable, "-c", FIRST.format(reading=reading)],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{found}\n", "")
