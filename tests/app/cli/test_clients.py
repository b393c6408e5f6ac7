"""``flask clients``: set, list and remove the organizations of clients."""

import pytest

from tests.support.command_line import assert_one_clear_error, result


def test_a_client_is_set_listed_and_removed(flask):
    """Each change is in the audit log of its organization."""
    assert flask("clients", "list").stdout == "no clients\n"
    assert flask("clients", "set", "sync", "--organization", "org-a").stdout == "sync: of org-a\n"
    again = result(flask("clients", "set", "sync", "--organization", "org-b", "--people", "--json"))
    changed = again.pop("changed")
    assert again == {"client": "sync", "organization": "org-b", "people": True}
    listed = result(flask("clients", "list", "--json"))
    assert listed == {"data": [again | {"changed": changed}]}
    assert result(flask("clients", "list", "--organization", "org-a", "--json")) == {"data": []}
    assert "machines and people" in flask("clients", "list").stdout
    assert flask("clients", "remove", "sync").stdout == "sync: removed\n"
    lines = flask("audit", "--organization", "org-a").stdout
    assert "client.set" in lines
    assert "client.removed" in lines


def test_a_client_that_is_set_as_it_is_stays(flask):
    words = ("clients", "set", "sync", "--organization", "org-a", "--json")
    assert result(flask(*words)) == result(flask(*words))


@pytest.mark.parametrize(
    "words",
    [
        ("clients", "set", "sync"),
        ("clients", "set", "", "--organization", "org-a"),
        ("clients", "set", "sync", "--organization", ""),
        ("clients", "remove", "sync"),
    ],
    ids=" ".join,
)
def test_a_wrong_call_is_one_clear_error(flask, words):
    assert_one_clear_error(flask(*words))
