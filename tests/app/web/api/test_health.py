"""Readiness: the database and its schema, without any version."""

import re

import pytest
from sqlalchemy import text

from app import __version__
from app.storage.schema import expected_revision


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE alembic_version SET version_num = '0001'",
        "UPDATE alembic_version SET version_num = '9999'",
        "DELETE FROM alembic_version",
        "DROP TABLE alembic_version",
    ],
    ids=["behind", "ahead", "half made", "never migrated"],
)
def test_another_schema_is_not_ready_and_its_process_lives(client, database, statement):
    assert client.get("/ready").status_code == 200
    database.write(lambda connection: connection.execute(text(statement)))
    answer = client.get("/ready")
    assert (answer.status_code, answer.json["code"]) == (503, "SERVICE_UNAVAILABLE")
    assert "schema" in answer.json["message"]
    check_silent(answer)
    assert client.get("/health").status_code == 200


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_neither_says_versions(client, path):
    answer = client.get(path)
    assert answer.status_code == 200
    check_silent(answer)


def check_silent(answer):
    answer.headers.remove("X-Request-Id")
    shown = f"{answer.headers} {answer.text}"
    assert __version__ not in shown
    assert expected_revision() not in shown
    assert not re.search(r"\d\.\d|000\d|9999", shown)
