"""What the tests of the command line share."""

import json
from typing import Any

MORNING = "2024-04-01T09:00:00Z"
PASSWORD = "hunter2-of-the-operator"


def event(event_id: str = "e1", **members: Any) -> dict[str, Any]:
    """An event's members; a member given as ``...`` is left out."""
    whole = {"id": event_id, "organizationId": "org-a", "agentId": "a1", "issuedAt": MORNING}
    return {name: value for name, value in (whole | members).items() if value is not ...}


def line(event_id: str = "e1", **members: Any) -> bytes:
    return json.dumps(event(event_id, **members)).encode() + b"\n"


def assert_one_clear_error(done: Any) -> str:
    """No success, no traceback, nothing on stdout; click may put its usage before the line."""
    assert done.returncode not in (0, 75)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    *usage, error = [text for text in done.stderr.splitlines() if text]
    assert all(text.startswith(("Usage: ", "Try ")) for text in usage), done.stderr
    assert error.lower().startswith("error: ")
    return error


def result(done: Any) -> Any:
    """The one JSON document on stdout of a command that succeeded quietly."""
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1
    return json.loads(done.stdout)
