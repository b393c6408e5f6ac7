"""SOURCES_FILE: read once at the start, and every mistake named by line and reason."""

from datetime import UTC, datetime, timedelta

import pytest

from app.errors import SettingsError
from app.factory import create_app
from app.intake.sources.entries import load_sources
from tests.support.services import service_of
from tests.support.settings import make_settings

FOLLOW = '[[source]]\nkind = "follow"\npath = "a.log"\nformat = "native"\n'
PULL = (
    '[[source]]\nkind = "pull"\nprovider = "okta"\nurl = "https://acme.okta.com"\n'
    'secret_file = "okta.toml"\norganization = "org-a"\n'
)


@pytest.fixture
def load(tmp_path, sqlite_url):
    (tmp_path / "okta.toml").write_text('token = "secret-token"\n')

    def load(text, **variables):
        path = tmp_path / "sources.toml"
        path.write_text(text)
        return load_sources(path, make_settings(sqlite_url, **variables))

    return load


def test_a_file_names_sources_and_organizations(load, tmp_path):
    """Paths are relative to the file; names and intervals have defaults."""
    text = '[organizations]\ndefault = "org-z"\nnames = { acme = "org-a" }\n\n' + FOLLOW + PULL
    found = load(text + 'every = "5m"\nsince = 2026-04-01\noverlap = "2h"\n')
    assert found.organizations.tenant_of("acme", "x") == "org-a"
    followed, pulled = found.sources
    assert followed.entry.path == tmp_path / "a.log"
    assert followed.entry.name == str(tmp_path / "a.log")
    assert (followed.file_format.name, followed.every) == ("native", 1)
    assert followed.options.organizations is found.organizations
    assert (pulled.entry.name, pulled.entry.secret_file) == ("okta", tmp_path / "okta.toml")
    assert (pulled.every, pulled.overlap) == (300, timedelta(hours=2))
    assert pulled.since == datetime(2026, 4, 1, tzinfo=UTC)
    assert pulled.options.tenant_id == "org-a"


def test_an_empty_file_names_nothing(load):
    assert load("").sources == ()


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("[[source]\n", 1, "not TOML"),
        ("# comment\n[[sources]]\n", 2, "sources: is unknown"),
        ("source = 1\n", 1, "source: must be written as"),
        ("[[source]]\n", 1, "kind: must be follow or pull"),
        ('[[source]]\nkind = "tail"\n', 2, "kind: must be follow or pull"),
        (FOLLOW + "\n" + FOLLOW.replace("native", "other"), 9, "format: must be one of"),
        (FOLLOW.replace("native", "csv"), 4, "format: csv cannot be followed"),
        (FOLLOW + 'colour = "red"\n', 5, "colour: is unknown"),
        (FOLLOW + "every = 5\n", 5, "every: Expected"),
        (FOLLOW + 'every = "0s"\n', 5, "every: must be longer"),
        (FOLLOW + 'every = "soon"\n', 5, "every: must be a duration"),
        (FOLLOW + 'zone = "Nowhere/Land"\n', 5, "zone: must be"),
        (FOLLOW + 'organization = ""\n', 5, "organization: must have"),
        (FOLLOW + 'mapping = "missing.toml"\n', 5, "mapping: "),
        (FOLLOW + 'rejects = "a.log"\n', 5, "rejects: is the followed file"),
        (FOLLOW + FOLLOW, 5, "name: "),
        ('[[source]]\nkind = "follow"\nformat = "native"\n', 1, "path: is required"),
        (PULL.replace("okta.toml", "missing.toml"), 5, "secret_file: "),
        (PULL.replace("https://acme", "ftp://acme"), 4, "url: must be"),
        (PULL.replace("https://acme", "https://user:secret-token@acme"), 4, "url: must be"),
        (PULL.replace('"okta"', '"ping"'), 3, "provider: must be one of"),
        (PULL.replace('organization = "org-a"\n', ""), 1, "organization: is needed"),
        (PULL + 'since = "yesterday"\n', 7, "since: must be a date"),
        (PULL.replace('"okta"', '"keycloak"'), 4, "url: must end with /realms/"),
        (PULL + 'since = "0001-01-01"\n', 7, "since: must be a date"),
        (PULL + 'overlap = "999999d"\n', 7, "overlap: must be a duration"),
        (PULL.replace("okta.toml", "a\\u0000b"), 5, "secret_file: must be a path"),
        ("[organizations]\ndefault = 5\n", 1, "organizations: "),
    ],
)
def test_a_mistake_is_named_by_line_and_reason(load, text, line, reason):
    with pytest.raises(SettingsError) as raised:
        load(text)
    message = raised.value.message
    assert message.startswith("SOURCES_FILE names ")
    assert reason in message
    assert f"line {line}" in message
    assert "secret-token" not in message


def test_production_sends_no_secret_without_tls(load):
    text = PULL.replace("https://acme", "http://acme")
    assert len(load(text).sources) == 1
    production = {"APP_ENV": "production", "ALLOW_SQLITE": "1"}
    with pytest.raises(SettingsError, match=r"line 4: url: must be an https"):
        load(text, **production)


def test_a_file_that_is_missing_is_named(tmp_path, sqlite_url):
    with pytest.raises(SettingsError, match="cannot be read"):
        load_sources(tmp_path / "none.toml", make_settings(sqlite_url))
    with pytest.raises(SettingsError, match="cannot be read"):
        load_sources(tmp_path, make_settings(sqlite_url))
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="not UTF-8"):
        load_sources(tmp_path / "bad.toml", make_settings(sqlite_url))


def test_the_web_reads_the_organizations_alone(tmp_path, sqlite_url):
    """The files that sources name need not be on its host; a mistake still ends its start."""
    file = tmp_path / "sources.toml"
    file.write_text('[organizations]\nnames = { acme = "org-a" }\n' + FOLLOW + PULL)
    settings = make_settings(sqlite_url, SOURCES_FILE=str(file))
    with service_of(settings) as app:
        assert app.extensions["analytics"].organizations.tenant_of("acme", "x") == "org-a"
    file.write_text("[organizations]\ndefault = 5\n")
    with pytest.raises(SettingsError, match="line 1: organizations: "):
        create_app(settings)
