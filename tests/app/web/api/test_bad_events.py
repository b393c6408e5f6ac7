"""POST /api/v1/events refuses bad events, and stores nothing of their batch.

Bad events are defined in tests/app/intake/test_events.py.
"""

import gzip
import json

import pytest
from sqlalchemy import func, select

from app.storage.tables import issuance_events
from tests.app.intake.test_events import BROKEN, EVENT, FORMS, NDJSON, event_with
from tests.support.tokens import bearer

EVENTS = "/api/v1/events"
GOOD = json.dumps(EVENT | {"id": "good"}).encode()


@pytest.fixture
def check_refused(client, database):
    """Send a body as the identity provider; it is refused and nothing of it is stored."""

    def check_refused(body, content_type="application/json", *, encoding="identity"):
        headers = bearer(scope="events:write:any") | {"Content-Encoding": encoding}
        body = gzip.compress(body, 1) if encoding == "gzip" else body
        answer = client.post(EVENTS, data=body, content_type=content_type, headers=headers)
        with database.reading() as connection:
            assert connection.scalar(select(func.count()).select_from(issuance_events)) == 0
        assert (answer.status_code, answer.mimetype) == (400, "application/json")
        assert set(answer.json) <= {"code", "message", "details"}
        assert answer.json["code"] == "VALIDATION_ERROR"
        assert answer.json["message"]
        return answer.json

    return check_refused


BAD = {
    "id": "a\x9f",
    "organizationId": "",
    "agentId": None,
    "issuedAt": "2026-04-01T09:00:00",
}


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
@pytest.mark.parametrize("form", FORMS)
def test_a_bad_event_is_named_and_none_is_stored(check_refused, form, encoding):
    content_type, frame, index = FORMS[form]
    for field, value in BAD.items():
        body = frame % json.dumps(EVENT | {field: value}).encode()
        refusal = check_refused(body, content_type, encoding=encoding)
        (error,) = refusal["details"]["errors"]
        assert set(error) == {"index", "field", "message"}
        assert (error["index"], error["field"]) == (index, field)
        assert error["message"]


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
@pytest.mark.parametrize("form", FORMS)
def test_invalid_json_is_refused_and_none_is_stored(check_refused, form, encoding):
    content_type, frame, _ = FORMS[form]
    for name in ("cut escape", "invalid UTF-8 in an unknown member", "deep id", "trailing brace"):
        check_refused(frame.replace(b"%s", BROKEN[name]), content_type, encoding=encoding)


@pytest.mark.parametrize("content_type", ["application/json", NDJSON])
def test_the_first_100_bad_events_are_listed_in_order(check_refused, content_type):
    lines = [GOOD if n % 2 else event_with(b'""', b"agentId") for n in range(300)]
    body = b"\n".join(lines) if content_type == NDJSON else b"[%s]" % b",".join(lines)
    errors = check_refused(body, content_type)["details"]["errors"]
    assert [error["index"] for error in errors] == list(range(0, 200, 2))
    assert {error["field"] for error in errors} == {"agentId"}
