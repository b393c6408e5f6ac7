"""Where the keys of tokens come from: exactly one source, and no key set from just anywhere."""

import itertools

import pytest

import app.config.settings
from tests.support.key_settings import every_mode, names, refusal, settings, write
from tests.support.keys import signer
from tests.support.settings import KEY

PUBLIC = {
    "JWT_PUBLIC_KEY": lambda _: signer("ES256").pem,
    "JWT_PUBLIC_KEY_FILE": lambda folder: write(folder, signer("ES256").pem),
    "JWT_JWKS_URL": lambda _: "https://idp.example/jwks.json",
}
SOURCES = {"JWT_SECRET_KEY": lambda _: KEY} | PUBLIC


@pytest.fixture
def instance(tmp_path, monkeypatch):
    """A checkout of its own, where the instance folder goes."""
    monkeypatch.setattr(app.config.settings, "ROOT", tmp_path)
    return tmp_path / "instance"


# Exactly one


@every_mode
@pytest.mark.parametrize("pair", list(itertools.combinations(SOURCES, 2)), ids=" and ".join)
def test_two_sources_of_keys_are_refused_by_both_names(mode, pair, tmp_path):
    both = {name: SOURCES[name](tmp_path) for name in pair}
    assert names(refusal(mode, **both)) >= set(pair)


@every_mode
def test_all_sources_at_once_are_refused_by_name(mode, tmp_path):
    every = {name: make(tmp_path) for name, make in SOURCES.items()}
    assert names(refusal(mode, **every)) >= set(SOURCES)


@every_mode
@pytest.mark.parametrize("name", SOURCES)
def test_one_source_is_enough_and_the_others_may_be_empty(mode, name, tmp_path):
    empty = dict.fromkeys(SOURCES, "")
    found = settings(mode, **empty | {name: SOURCES[name](tmp_path)})
    given = [found.jwt_secret_key, found.jwt_public_key, found.jwt_jwks_url]
    assert sum(key is not None for key in given) == 1
    assert (found.jwt_secret_key == KEY) is (name == "JWT_SECRET_KEY")
    assert (found.jwt_jwks_url is not None) is (name == "JWT_JWKS_URL")


def test_production_without_any_source_names_them_all():
    assert names(refusal("production")) >= set(SOURCES)


def test_development_without_any_source_makes_a_secret(instance):
    found = settings("development")
    assert len(found.jwt_secret_key.encode()) >= 32
    assert found.jwt_public_key is found.jwt_jwks_url is None
    assert (instance / "jwt_secret_key").read_text() == found.jwt_secret_key


@pytest.mark.parametrize("name", PUBLIC)
def test_development_with_a_public_source_makes_no_secret(name, tmp_path, instance):
    found = settings("development", **{name: PUBLIC[name](tmp_path)})
    assert found.jwt_secret_key is None
    assert not (instance / "jwt_secret_key").exists()


@pytest.mark.parametrize("claim", ["JWT_ISSUER", "JWT_AUDIENCE"])
@pytest.mark.parametrize("name", PUBLIC)
def test_production_requires_issuer_and_audience(name, claim, tmp_path):
    """In production a public key needs JWT_ISSUER and JWT_AUDIENCE, or `none` for either."""
    source = {name: PUBLIC[name](tmp_path)}
    assert claim in names(refusal("production", **source, **{claim: ""}))
    found = settings("production", **source, **{claim: "none"})
    assert {"JWT_ISSUER": found.jwt_issuer, "JWT_AUDIENCE": found.jwt_audiences}[claim] is None


# A key set's URL


THIS_HOST = [
    "http://127.0.0.1/jwks",
    "http://127.0.0.1:8080/jwks",
    "http://127.9.9.9/jwks",
    "http://localhost:8080/jwks",
    "http://[::1]:8080/jwks",
]
OTHER_HOSTS = [
    "http://idp.example/jwks",
    "http://10.0.0.1/jwks",
    "http://0.0.0.0/jwks",
    "http://[::]/jwks",
    "http://[fe80::1]/jwks",
    "http://127.0.0.1.idp.example/jwks",
    "http://localhost.idp.example/jwks",
    "http://mylocalhost/jwks",
    "http://127.0.0.1@idp.example/jwks",
    "http://localhost:80@idp.example/jwks",
    "http://idp.example/http://localhost/",
    "http://idp.example?@localhost/",
    "http://idp.example#@localhost/",
    "HTTP://idp.example/jwks",
]


@pytest.mark.parametrize("url", THIS_HOST)
def test_production_fetches_keys_in_clear_from_this_host_alone(url):
    assert settings("production", JWT_JWKS_URL=url).jwt_jwks_url == url


@pytest.mark.parametrize("url", OTHER_HOSTS)
def test_production_refuses_a_plain_http_jwks_url(url):
    """Production refuses a plain HTTP address of another host as JWT_JWKS_URL."""
    assert "JWT_JWKS_URL" in names(refusal("production", JWT_JWKS_URL=url))


@pytest.mark.parametrize("url", [*THIS_HOST, "http://idp.example/jwks", "https://idp.example/jwks"])
def test_development_fetches_keys_from_anywhere(url):
    assert settings("development", JWT_JWKS_URL=url).jwt_jwks_url == url


@every_mode
@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://idp.example/jwks",
        "data:application/json,{}",
        "idp.example/jwks",
        "//idp.example/jwks",
        "https://",
        "https:///jwks",
        "https://idp.example:port/jwks",
        "https://idp.example:99999/jwks",
        "https://[::1/jwks",
        "https://idp.example/jwks keys",
        "https://idp.example/\njwks",
        "https://idp.example /jwks",
        "garbage",
    ],
)
def test_what_is_no_url_of_a_key_set_is_refused_by_name(mode, url):
    assert "JWT_JWKS_URL" in names(refusal(mode, JWT_JWKS_URL=url))
