"""Zitadel: the events of its API, and of Actions v2."""

import json
from typing import Any

from tests.app.intake.formats.reading import events, lines, read, reasons


def record(kind: str = "user.token.v2.added", sequence: str = "9", **members: Any) -> Any:
    """An event of ``/admin/v1/events/_search``."""
    return {
        "aggregate": {"id": "336494809936035843", "resourceOwner": "336392597046099971"},
        "sequence": sequence,
        "creationDate": "2024-07-01T10:00:00.5Z",
        "type": {"type": kind},
    } | members


def test_a_users_token_counts_and_its_twin_does_not() -> None:
    """Two events are written for one token; a sequence is unique in its aggregate only."""
    page = {
        "events": [
            record(),
            record("oidc_session.access_token.added"),
            record("oidc_session.added"),
            record("user.machine.secret.check.succeeded"),
            record(sequence="18446744073709551615"),
        ]
    }
    outcomes = read("zitadel", json.dumps(page, indent=1))
    assert [event[:3] for event in events(outcomes)] == [
        ("336392597046099971", "336494809936035843 9", "336494809936035843"),
        ("336392597046099971", "336494809936035843 18446744073709551615", "336494809936035843"),
    ]
    assert reasons(outcomes) == {"no issuance": 3}


def test_actions_write_numbers() -> None:
    """Actions v2 writes flat members, with the sequence as a number."""
    action = {
        "aggregateID": "336494809936035843",
        "resourceOwner": "336392597046099971",
        "sequence": 9,
        "event_type": "user.token.v2.added",
        "created_at": "2024-07-01T10:00:00.5Z",
    }
    assert read("zitadel", lines(action)) == read("zitadel", lines(record()))
