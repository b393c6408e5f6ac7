"""``flask keys``: create, list and revoke keys."""

import re
from datetime import UTC, datetime, timedelta

import pytest

from app.factory import create_app
from tests.support.api_keys import with_key
from tests.support.command_line import assert_one_clear_error, result
from tests.support.settings import make_settings

TOKENS = "/api/v1/analytics/tokens?days=1"


def test_a_key_is_printed_once_and_works_until_revoked(flask, database_url):
    """stdout has the key alone, so that a script can store it."""
    made = flask("keys", "create", "--organization", "org-a", "--scope", "analytics:read")
    assert made.returncode == 0
    assert re.fullmatch(r"agk_[0-9A-Za-z]{44}\n", made.stdout)
    assert "shown only once" in made.stderr
    text = made.stdout.strip()
    app = create_app(make_settings(database_url))
    client = app.test_client()
    assert client.get(TOKENS, headers=with_key(text)).json["tenantId"] == "org-a"
    listed = flask("keys", "list")
    assert text[4:16] in listed.stdout
    assert text not in listed.stdout
    assert flask("keys", "revoke", text[4:16]).stdout == f"{text[4:16]}: revoked\n"
    app.extensions["analytics"].database.dispose()
    again = create_app(make_settings(database_url))
    assert again.test_client().get(TOKENS, headers=with_key(text)).status_code == 401
    again.extensions["analytics"].database.dispose()


def test_a_key_is_described_as_json(flask):
    made = result(
        flask(
            *("keys", "create", "--organization", "org-a", "--scope", "events:write"),
            *("--scope", "agents:write", "--expires", "90d", "--note", "log stream", "--json"),
        )
    )
    text = made.pop("key")
    lasts = datetime.fromisoformat(made["expires"]) - datetime.fromisoformat(made["created"])
    assert lasts == timedelta(days=90)
    assert (made["organization"], made["note"]) == ("org-a", "log stream")
    assert made["scopes"] == ["events:write", "agents:write"]
    assert text.startswith(made["prefix"])
    assert result(flask("keys", "list", "--json")) == {"data": [made]}
    assert result(flask("keys", "list", "--organization", "org-b", "--json")) == {"data": []}
    revoked = result(flask("keys", "revoke", "--json", made["prefix"]))
    assert datetime.fromisoformat(revoked.pop("revoked")) <= datetime.now(UTC)
    assert revoked == {name: value for name, value in made.items() if name != "revoked"}


def test_a_leaked_key_is_revoked_by_its_whole_text(flask):
    text = flask("keys", "create", "--any", "--scope", "events:write:any").stdout.strip()
    done = flask("keys", "revoke", text)
    assert (done.returncode, done.stdout) == (0, f"{text[4:16]}: revoked\n")


def test_the_list_shows_what_a_key_is_for(flask):
    assert flask("keys", "list").stdout == "no keys\n"
    flask("keys", "create", "--any", "--scope", "events:write:any", "--note", "the provider")
    header, row = flask("keys", "list").stdout.splitlines()
    assert header.split()[:4] == ["key", "organization", "scopes", "created"]
    assert "(any)" in row
    assert row.endswith("the provider")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--scope", "events:write"),
        ("--organization", "org-a"),
        ("--organization", "org-a", "--any", "--scope", "events:write:any"),
        ("--organization", "org-a", "--scope", "events:write:any"),
        ("--organization", "org-a", "--scope", "analytics:read", "--scope", "events:write:any"),
        ("--organization", "", "--scope", "events:write"),
        ("--organization", "a\nb", "--scope", "events:write"),
        ("--organization", "org-a", "--scope", "everything"),
        ("--organization", "org-a", "--scope", ""),
        ("--any", "--scope", "analytics:read"),
        ("--organization", "org-a", "--scope", "events:write", "--expires", "0d"),
        ("--organization", "org-a", "--scope", "events:write", "--expires", "tomorrow"),
        ("--organization", "org-a", "--scope", "events:write", "--expires", "-1d"),
        ("--organization", "org-a", "--scope", "events:write", "--note", "n" * 256),
        ("--organization", "org-a", "--scope", "events:write", "--note", "a\tb"),
    ],
)
def test_a_key_that_makes_no_sense_is_not_created(flask, arguments):
    assert_one_clear_error(flask("keys", "create", *arguments))
    assert result(flask("keys", "list", "--json")) == {"data": []}


@pytest.mark.parametrize(
    "key_id", ["AAAAAAAAAAAA", "agk_AAAAAAAAAAAA", "x", "%", "agk_" + "A" * 44]
)
def test_an_unknown_key_cannot_be_revoked(flask, key_id):
    """The error does not repeat what may be a key."""
    assert key_id not in assert_one_clear_error(flask("keys", "revoke", key_id))
