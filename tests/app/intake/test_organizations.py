"""Organizations: tables from a provider's ids to tenants."""

from pathlib import Path

import pytest

from app.errors import ValidationError
from app.intake.organizations import load_organizations, read_organizations

TABLE = {"default": "org-d", "names": {"realm": "org-r", "default": "org-x"}, "agents": {"a": "o"}}


def test_a_known_organization_decides_before_the_agent() -> None:
    """A record's organization decides, then its agent, then the default, then its own name."""
    known = read_organizations(TABLE)
    assert known.tenant_of("realm", "a") == "org-r"
    assert known.tenant_of("default", "x") == "org-x"
    assert known.tenant_of("other", "a") == "o"
    assert known.tenant_of("other", "x") == "org-d"
    assert known.tenant_of(None, "x") == "org-d"
    without = read_organizations({"names": {"realm": "org-r"}})
    assert (without.tenant_of("other", "x"), without.tenant_of(None, "x")) == ("other", None)


def test_names_may_stand_beside_the_tables() -> None:
    """A short table maps names alone."""
    known = read_organizations({"c1": "org-1", "default": "org-d"})
    assert (known.tenant_of("c1", "x"), known.tenant_of("c2", "x")) == ("org-1", "org-d")


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ({"c1": ""}, "c1"),
        ({"c1": 1}, "c1"),
        ({"nmaes": {"a": "b"}}, "nmaes"),
        ({"names": "x"}, "names"),
        ({"agents": ["x"]}, "agents"),
        ({"names": {"c1": "a\nb"}}, "c1"),
        ({"agents": {"c1": True}}, "c1"),
        ({"default": ""}, "default"),
        ({"default": {"a": "b"}}, "default"),
    ],
)
def test_a_wrong_table_names_its_member(table: dict[str, object], named: str) -> None:
    """The error names the member that is wrong."""
    with pytest.raises(ValueError, match=named):
        read_organizations(table)


def test_a_file_is_the_table_or_contains_it(tmp_path: Path) -> None:
    """A file holds the three members, alone or below ``[organizations]``."""
    path = tmp_path / "table.toml"
    for text in ('names = { c1 = "org-1" }', '\ufeff[organizations.names]\r\nc1 = "org-1"'):
        path.write_text(text, "utf-8")
        assert load_organizations(path).tenant_of("c1", "x") == "org-1"


@pytest.mark.parametrize("text", ["names = ", "x = 1", "[organizations]\nx = 1"])
def test_a_wrong_file_is_named(tmp_path: Path, text: str) -> None:
    """The error names the file."""
    path = tmp_path / "table.toml"
    path.write_text(text)
    with pytest.raises(ValidationError, match=str(path)):
        load_organizations(path)
    with pytest.raises(ValidationError, match="nowhere"):
        load_organizations(tmp_path / "nowhere")
