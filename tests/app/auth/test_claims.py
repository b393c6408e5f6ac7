"""Claims of configured names: as they are, by a JSON pointer, or by a dotted path."""

import pytest

from app.auth import claims
from app.errors import ForbiddenError

FOUND = [
    ("org", {"org": "a"}),
    ("a.b", {"a.b": "a", "a": {"b": "wrong"}}),
    ("a.b", {"a": {"b": "a"}}),
    ("a.b.c", {"a": {"b": {"c": "a"}}}),
    ("/a/b", {"a": {"b": "a"}}),
    ("/a~1b/c~0d", {"a/b": {"c~d": "a"}}),
    ("/~01", {"~1": "a"}),
    ("/a/1", {"a": ["wrong", "a"]}),
    ("a.0.b", {"a": [{"b": "a"}]}),
    ("/", {"": "a"}),
    ("https://x.example/org", {"https://x.example/org": "a"}),
]


@pytest.mark.parametrize(("name", "token"), FOUND, ids=str)
def test_a_configured_name_finds_its_claim(name, token):
    """A claim with the whole name counts first, then the steps of the path."""
    assert claims.organization_of(token, name) == "a"


ABSENT = [
    ("org", {}),
    ("a.b", {"a": {"c": "x"}}),
    ("a.b", {"b": "x"}),
    ("/a/b", {}),
    ("/a/2", {"a": ["x", "y"]}),
    ("/a/-1", {"a": ["x", "y"]}),
    ("/a/x", {"a": ["x"]}),
    ("/a/\u0661", {"a": ["x", "y"]}),
    (f"/a/{'9' * 150}", {"a": ["x"]}),
    ("https://x.example/org", {"https://x": {"example/org": "x"}}),
]


@pytest.mark.parametrize(("name", "token"), ABSENT, ids=str)
def test_a_missing_step_is_a_missing_claim(name, token):
    """A token without the claim has no organization."""
    assert claims.organization_of(token, name) is None


MALFORMED = [
    ("org", {"org": None}),
    ("a.b", {"a": "b"}),
    ("a.b", {"a": None}),
    ("a.b", {"a": 7}),
    ("/a/b/c", {"a": {"b": "c"}}),
]


@pytest.mark.parametrize(("name", "token"), MALFORMED, ids=str)
def test_a_step_into_a_value_is_an_invalid_claim(name, token):
    """A claim that is there and malformed is refused, and never taken for a missing one."""
    with pytest.raises(ForbiddenError, match="organization is invalid"):
        claims.organization_of(token, name)


@pytest.mark.parametrize("name", ["org", "a.b", "/a/b", "/a~1b/c", "https://x.example/org"])
def test_a_claim_that_is_set_is_found(name):
    """A minted token names its organization where the service reads it."""
    token: dict[str, object] = {"a": {"other": 1}}
    claims.set_claim(token, name, "org-1")
    assert claims.organization_of(token, name) == "org-1"
    assert token["a"]["other"] == 1


NAMES = [
    ({"client_id": "c", "azp": "a"}, "c"),
    ({"client_id": "", "azp": "a"}, "a"),
    ({"client_id": None, "azp": "a"}, "a"),
    ({"client_id": {"x": 1}, "azp": ["a"]}, ""),
    ({"client_id": 7}, "7"),
    ({"client_id": True}, ""),
    ({"client_id": "x" * 300}, "x" * 255),
    ({"client_id": "x\n"}, ""),
    ({"client_id": "\ud800"}, ""),
    ({}, ""),
]


@pytest.mark.parametrize(("token", "name"), NAMES, ids=str)
def test_a_name_is_short_and_has_no_control_characters(token, name):
    """A name of a client is for logs; a value that cannot be one is skipped."""
    assert claims.text_of(token, "client_id", "azp") == name
