"""A database without its state row is damaged: reports and jobs refuse it with a remedy."""

import pytest
from sqlalchemy import delete

from app.storage.tables import rollup_state
from tests.support.command_line import assert_one_clear_error
from tests.support.tokens import bearer

READS = ["tokens", "agents/activity", "agents"]


@pytest.fixture
def damaged(issue, roll_up, database):
    issue("2026-04-01T00:00:00Z")
    roll_up()
    database.write(lambda connection: connection.execute(delete(rollup_state)))


@pytest.mark.parametrize("report", READS)
def test_a_report_is_503_and_not_zero(damaged, client, report):
    answer = client.get(f"/api/v1/analytics/{report}", headers=bearer())
    assert (answer.status_code, answer.json["code"]) == (503, "SERVICE_UNAVAILABLE")
    assert "restore the database from a backup" in answer.json["message"]


@pytest.mark.parametrize(
    "command",
    ["run", "status", "verify", "rebuild --from 2026-04 --to 2026-04"],
)
def test_a_job_refuses_in_one_line(damaged, flask, command):
    error = assert_one_clear_error(flask("rollup", *command.split()))
    assert "rollup_state has no row: restore the database from a backup" in error
