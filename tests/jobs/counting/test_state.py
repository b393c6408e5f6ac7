"""Without its state row a database is half a copy, and nobody takes it for a whole one."""

import pytest
from sqlalchemy import delete

from app.storage.tables import rollup_state
from tests.support.command_line import assert_one_clear_error
from tests.support.tokens import bearer

READS = ["tokens", "agents/activity", "agents"]


@pytest.fixture
def half(issue, roll_up, database):
    issue("2026-04-01T00:00:00Z")
    roll_up()
    database.write(lambda connection: connection.execute(delete(rollup_state)))


@pytest.mark.parametrize("path", [*(f"/api/v1/analytics/{read}" for read in READS), "/ready"])
def test_numbers_that_are_not_here_are_503_and_not_zero(half, client, path):
    answer = client.get(path, headers=bearer())
    assert (answer.status_code, answer.json["code"]) == (503, "SERVICE_UNAVAILABLE")
    assert "copy" in answer.json["message"]


@pytest.mark.parametrize(
    "command",
    ["run", "status", "verify", "rebuild --from 2026-04 --to 2026-04"],
)
def test_the_jobs_say_so_in_one_line(half, flask, command):
    assert "rollup_state has no row" in assert_one_clear_error(flask("rollup", *command.split()))
