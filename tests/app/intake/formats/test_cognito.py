"""Amazon Cognito: CloudTrail's files and EventBridge."""

import gzip
import json
from typing import Any

from tests.app.intake.formats.reading import events, lines, read, reasons
from tests.support.settings import EVENT_BYTES


def record(number: int, name: str = "Token_POST", status: Any = 200, **additional: Any) -> Any:
    return {
        "eventVersion": "1.08",
        "eventTime": "2024-05-12T21:10:23Z",
        "eventSource": "cognito-idp.amazonaws.com",
        "eventName": name,
        "eventID": f"c73e-{number}",
        "requestParameters": None,
        "additionalEventData": {
            "responseParameters": {"status": status},
            "requestParameters": {"grant_type": ["client_credentials"], "client_id": ["agent-1"]},
            "userPoolId": "us-west-2_a",
        }
        | additional,
    }


def test_token_requests_count() -> None:
    """A status may be written with a fraction, and the client may be an array or a member."""
    outcomes = read(
        "cognito",
        json.dumps(
            {
                "Records": [
                    record(1),
                    record(2, status=200.0, clientId="agent-2"),
                    record(3, "Login_GET"),
                    record(4, status=400),
                    record(5) | {"eventSource": "s3.amazonaws.com"},
                    record(6, status=True),
                    record(7, status="200"),
                    record(8, requestParameters={}),
                ]
            }
        ),
    )
    assert [event[:3] for event in events(outcomes)] == [
        ("us-west-2_a", "c73e-1", "agent-1"),
        ("us-west-2_a", "c73e-2", "agent-2"),
    ]
    assert reasons(outcomes) == {"no issuance": 2, "failed": 3, "no agent": 1}


def test_a_file_is_one_long_line() -> None:
    """A file of CloudTrail is one line far above the limit of a record, compressed."""
    count = 3 * EVENT_BYTES // len(json.dumps(record(1)))
    text = json.dumps({"Records": [record(number) for number in range(count)]})
    outcomes = read("cognito", gzip.compress(text.encode()))
    assert len(events(outcomes)) == len(outcomes) == count


def test_event_bridge_wraps_a_record() -> None:
    envelope = {"id": "aws-1", "time": "2024-05-13T00:00:00Z", "detail": record(1)}
    (event,) = events(read("cognito", lines(envelope)))
    assert (event.event_id, str(event.issued_at)) == ("c73e-1", "2024-05-12 21:10:23+00:00")
