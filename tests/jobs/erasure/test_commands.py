"""``flask organizations`` and ``flask agents``: export, deletion, erasure."""

import json

import pytest

from app.storage.tables import metadata
from jobs.erasure.export import SECRET
from tests.jobs.erasure.conftest import OF_TENANTS, OLD, contents
from tests.support.command_line import assert_one_clear_error, result

pytestmark = pytest.mark.slow


@pytest.mark.quick
def test_an_export_has_every_row(flask, filled):
    """Of this organization alone; the last line says how many, so that nothing is cut off."""
    done = flask("organizations", "export", "t")
    assert (done.returncode, done.stderr) == (0, "")
    first, *rows, last = map(json.loads, done.stdout.splitlines())
    assert first.keys() == {"organizationId", "version", "at"}
    assert first["organizationId"] == "t"
    numbers = {table.name: 0 for table in OF_TENANTS}
    for row in rows:
        numbers[row["table"]] += 1
        assert row["row"]["tenant_id"] == "t"
        columns = set(metadata.tables[row["table"]].c) - SECRET
        assert row["row"].keys() == {column.name for column in columns}
    assert numbers == {name: len(found) for name, found in contents(filled, "t").items()}
    assert last == {"rows": numbers}
    assert "0" * 64 not in done.stdout


@pytest.mark.quick
def test_no_secret_is_exported():
    """A new column with a secret must be named in SECRET."""
    words = ("sha256", "secret", "hash", "password", "token_hash")
    found = {
        column
        for table in OF_TENANTS
        for column in table.c
        if any(word in column.name for word in words)
    }
    assert found <= SECRET


def test_an_unknown_organization_is_an_error_of_an_export(flask, database):
    done = flask("organizations", "export", "nobody")
    assert "check its id" in assert_one_clear_error(done)


def test_a_deletion_needs_a_word(flask, filled):
    """Without a terminal it is --yes; the numbers of rows are named before."""
    before = contents(filled, "t")
    refused = flask("organizations", "delete", "t")
    assert refused.returncode == 1
    assert "this deletes of 't': 1 agents, 1 api_keys, 1 audit_log" in refused.stderr
    assert "nothing was deleted" in refused.stderr
    assert contents(filled, "t") == before
    done = result(flask("organizations", "delete", "t", "--yes", "--json"))
    assert done == {"rows": sum(map(len, before.values())) - 1, "finished": True}
    assert not any(contents(filled, "t").values())
    again = flask("organizations", "delete", "t", "--yes")
    assert (again.returncode, again.stdout) == (0, "0 rows deleted\n")
    assert "check its id" in again.stderr


def test_an_agent_is_erased(flask, filled):
    """The command prints neither id; a second call finds nothing."""
    options = ["--organization", "t", "--agent", OLD]
    done = result(flask("agents", "erase", *options, "--json"))
    assert done == {"erased": True, "events": 9, "notes": []}
    again = flask("agents", "erase", *options)
    assert (again.returncode, again.stdout) == (0, "nothing was changed\n")
    assert "no such agent" in again.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("organizations", "delete", ""),
        ("organizations", "delete"),
        ("organizations", "export", "a\x1bb"),
        ("agents", "erase", "--organization", "t"),
        ("agents", "erase", "--organization", "", "--agent", "a"),
        ("agents", "erase", "--organization", "t", "--agent", "x" * 256),
    ],
)
def test_wrong_usage_is_refused(flask, arguments):
    assert flask(*arguments).returncode == 2
