"""Settings of signing in: the required ones, and the ones refused by name."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.key_settings import every_mode, refusal, settings
from tests.support.settings import KEY

PROVIDER = {"OIDC_ISSUER": "https://idp.example/realms/a", "OIDC_CLIENT_ID": "analytics"}
SECRET = "hunter2-of-the-dashboard"


def chosen(mode, **variables):
    return settings(mode, JWT_SECRET_KEY=KEY, **variables)


def refused(mode, **variables):
    return refusal(mode, JWT_SECRET_KEY=KEY, **variables)


@every_mode
def test_a_provider_and_a_client_of_it_are_enough(mode):
    provider = chosen(mode, **PROVIDER).provider
    assert (provider.issuer, provider.client_id) == tuple(PROVIDER.values())
    assert (provider.client_secret, provider.scope) == (None, "openid")


@every_mode
@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ("OIDC_ISSUER", "OIDC_CLIENT_ID"),
        ("OIDC_CLIENT_ID", "OIDC_ISSUER"),
        ("OIDC_CLIENT_SECRET", "OIDC_ISSUER"),
    ],
)
def test_each_needs_the_other(mode, given, missing):
    value = PROVIDER.get(given, SECRET)
    message = refused(mode, **{given: value})
    assert (given in message, missing in message, SECRET in message) == (True, True, False)


def test_token_login_is_on_in_development_only():
    """Production accepts a pasted token only if DASHBOARD_TOKEN_LOGIN is set."""
    assert chosen("development").token_login
    assert not chosen("production").token_login
    assert chosen("production", DASHBOARD_TOKEN_LOGIN="1").token_login
    assert not chosen("development", DASHBOARD_TOKEN_LOGIN="0").token_login
    assert "DASHBOARD_TOKEN_LOGIN" in refused("production", DASHBOARD_TOKEN_LOGIN="yes")


def test_production_refuses_a_plain_http_provider():
    """Production refuses a plain HTTP provider, except on this host."""
    for host in ("idp.example", "10.0.0.1"):
        plain = PROVIDER | {"OIDC_ISSUER": f"http://{host}"}
        assert "OIDC_ISSUER" in refused("production", **plain)
        assert chosen("development", **plain).provider
    here = PROVIDER | {"OIDC_ISSUER": "http://127.0.0.1:8080"}
    assert chosen("production", **here).provider


@every_mode
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            ("OIDC_ISSUER", text)
            for text in ("idp.example", "ftp://idp.example", "https://", "x y")
        ),
        *(
            ("OIDC_ISSUER", f"https://idp.example{text}")
            for text in ("?a=b", "/#a", ":port", " /a")
        ),
        *(("OIDC_CLIENT_ID", text) for text in ("caf\u00e9", "a\nb", "x" * 1001)),
        *(
            ("OIDC_SCOPE", text)
            for text in ("email", "openid  email", 'openid "x"', "openid\temail")
        ),
        ("OIDC_SCOPE", "openids"),
    ],
)
def test_a_value_that_cannot_be_right_is_refused_by_name(mode, name, value):
    assert name in refused(mode, **PROVIDER | {name: value})


def test_the_provider_describes_itself_below_its_issuer():
    for issuer in ("https://idp.example/realms/a", "https://idp.example/", "https://idp.example"):
        provider = chosen("production", **PROVIDER | {"OIDC_ISSUER": issuer}).provider
        assert provider.issuer == issuer
        expected = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
        assert provider.metadata_url == expected


def test_the_clients_secret_is_never_shown():
    given = chosen("production", **PROVIDER, OIDC_CLIENT_SECRET=SECRET)
    assert given.provider.client_secret == SECRET
    assert SECRET not in f"{given!r} {given} {given.provider!r}"


@pytest.mark.parametrize(
    ("text", "claim", "values"),
    [
        ("groups:admins", "groups", {"admins"}),
        ("groups:a,b c", "groups", {"a", "b c"}),
        ("https://x.test/roles:admin", "https://x.test/roles", {"admin"}),
        ("/a/b:urn:x:admin", "/a/b", {"urn:x:admin"}),
        ("realm_access.roles:a", "realm_access.roles", {"a"}),
    ],
)
def test_a_rule_names_a_claim_and_its_values(text, claim, values):
    rule = chosen("development", **PROVIDER, OIDC_ADMIN_CLAIM=text).oidc_admin_claim
    assert (rule.claim, set(rule.values)) == (claim, values)


WRONG = {
    "OIDC_ADMIN_CLAIM": ("groups", ":x", "groups:", "groups:a,,b", "https://x.test", "a b:c"),
    "OIDC_RESOURCE": ("x", "https://x.test#y", "https://x test"),
    "OIDC_METADATA_URL": ("x", "ftp://x.test"),
    "OIDC_CLIENT_KEY_FILE": ("/nowhere/key.pem",),
    "SESSION_HOURS": ("0", "169", "1.5"),
    "SECRET_KEY_FALLBACKS": ("short", f"{KEY},"),
    "JWT_AUDIENCE": (",", " , "),
}


@pytest.mark.parametrize(
    ("variable", "text"), [(name, text) for name, texts in WRONG.items() for text in texts]
)
def test_a_wrong_value_is_refused_by_name(variable, text):
    assert variable in refused("development", **PROVIDER | {variable: text})


def test_a_file_must_have_a_private_key_of_a_known_kind(tmp_path):
    """The message does not repeat the file, and a client has a secret or a key."""
    file = tmp_path / "key.pem"
    for private in (generate_private_key(SECP256R1()), Ed25519PrivateKey.generate()):
        file.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        key = chosen("production", **PROVIDER, OIDC_CLIENT_KEY_FILE=str(file)).provider.client_key
        assert key.algorithm in ("ES256", "EdDSA")
        assert "PRIVATE" not in repr(key)
    both = {"OIDC_CLIENT_KEY_FILE": str(file), "OIDC_CLIENT_SECRET": SECRET}
    assert "keep one" in refused("development", **PROVIDER | both)
    wrong = generate_private_key(SECP384R1())
    file.write_bytes(wrong.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    for text in (file.read_text(), "x", file.read_text()[:100]):
        file.write_text(text)
        message = refused("development", **PROVIDER, OIDC_CLIENT_KEY_FILE=str(file))
        assert message.startswith("OIDC_CLIENT_KEY_FILE ")
        assert "MIG" not in message
