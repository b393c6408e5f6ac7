"""With a key set, ``kid`` chooses among its keys, and nothing in a token adds another one."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519

from app.factory import create_app
from tests.support.jwks_server import serving
from tests.support.keys import Signer, encode, sign, signer
from tests.support.settings import KEY, NOW, make_settings
from tests.support.tokens import payload

READ = "/api/v1/analytics/tokens"
RSA, RSA_TOO = signer("RS256", "rsa"), signer("RS256", "rsa-too")
EC, ED = signer("ES256", "ec"), signer("EdDSA", "ed")
OURS = [RSA, RSA_TOO, EC, ED]
STRANGER = signer("RS256", "stranger")
# As Keycloak publishes its own: a certificate beside the key, and one key for encryption.
CERTIFICATE = {"x5c": ["MIIC"], "x5t": "AAAA", "x5t#S256": "AAAA"}
OCT = {"kty": "oct", "kid": "oct", "alg": "HS256", "k": encode(KEY.encode())}
every_key = pytest.mark.parametrize("ours", OURS, ids=lambda ours: ours.kid)


@pytest.fixture(scope="module")
def provider():
    keys = [RSA.jwk(alg="RS256", **CERTIFICATE), RSA_TOO.jwk(use=...), EC.jwk(), ED.jwk(), OCT]
    with serving(*keys) as provider:
        yield provider


@pytest.fixture(scope="module")
def trust(shared_sqlite_url):
    """Make clients of services, each with the key set of a provider."""
    apps = []

    def trust(provider):
        settings = make_settings(shared_sqlite_url, JWT_JWKS_URL=provider.url)
        apps.append(create_app(settings, clock=lambda: NOW))
        return apps[-1].test_client()

    yield trust
    for app in apps:
        app.extensions["analytics"].database.dispose()


@pytest.fixture(scope="module")
def client(trust, provider):
    """A client of one service for the whole file."""
    return trust(provider)


def status(client, text):
    """The status of a read; a refusal is checked for its form."""
    answer = client.get(READ, headers={"Authorization": f"Bearer {text}"})
    if answer.status_code != 200:
        assert answer.json["code"] == "UNAUTHORIZED"
        assert answer.headers["WWW-Authenticate"].startswith('Bearer error="invalid_token"')
    return answer.status_code


@every_key
def test_a_token_with_the_kid_of_its_key_is_let_in(client, ours):
    answer = client.get(READ, headers=ours.bearer("org-of-the-token"))
    assert (answer.status_code, answer.json["tenantId"]) == (200, "org-of-the-token")


@every_key
def test_a_token_with_the_kid_of_another_key_is_401(client, ours):
    for other in (*OURS, STRANGER):
        if other.kid != ours.kid:
            assert status(client, ours.token(header={"kid": other.kid})) == 401
            header = {"kid": other.kid, "alg": other.algorithm}
            assert status(client, ours.token(header=header)) == 401


BAD_KIDS = {
    "absent": ...,
    "null": None,
    "true": True,
    "0": 0,
    "1": 1,
    "fraction": 1.5,
    "list": ["rsa"],
    "object": {"rsa": "rsa"},
    "empty": "",
    "unknown": "unknown",
    "other case": "RSA",
    "space after": "rsa ",
    "NUL after": "rsa\0",
    "long": "rsa" * 2000,
    "up and down": "../keys/rsa",
    "up": "../../../../dev/null",
    "URL": "http://127.0.0.1/jwks.json",
    "SQL": "x' UNION SELECT 'key",
    "format": "%s{0}$rsa",
    "surrogate": "\ud800",
    "None": "None",
}


@pytest.mark.parametrize("kid", BAD_KIDS.values(), ids=BAD_KIDS)
def test_a_kid_that_is_not_in_the_set_is_401(client, kid):
    """Even when the signature is right."""
    for ours in OURS:
        assert (ours.kid, status(client, ours.token(header={"kid": kid}))) == (ours.kid, 401)


# A token brings no key and no rules of its own


def own(name, value):
    return {name: value}


OWN_KEYS = {
    "jku": lambda provider: own("jku", provider.url),
    "jku null": lambda _: own("jku", None),
    "x5u": lambda provider: own("x5u", provider.url),
    "jwk": lambda _: own("jwk", STRANGER.jwk()),
    "jwk, the right one": lambda _: own("jwk", RSA.jwk()),
    "x5c": lambda _: own("x5c", ["MIIC"]),
    "x5c empty": lambda _: own("x5c", []),
    "crit unknown": lambda _: {"crit": ["tenant"], "tenant": "org-a"},
    "crit absent": lambda _: own("crit", ["tenant"]),
    "crit exp": lambda _: {"crit": ["exp"], "exp": 1},
    "crit b64": lambda _: {"crit": ["b64"], "b64": True},
    "crit b64 false": lambda _: {"crit": ["b64"], "b64": False},
    "crit alg": lambda _: own("crit", ["alg"]),
    "crit empty": lambda _: own("crit", []),
    "crit null": lambda _: own("crit", None),
    "crit text": lambda _: own("crit", "kid"),
}


@pytest.mark.parametrize("make", OWN_KEYS.values(), ids=OWN_KEYS)
def test_a_header_with_its_own_key_or_crit_is_401(client, provider, make):
    """A header with its own key or `crit` is refused, even if the signature is valid."""
    assert status(client, RSA.token(header=make(provider))) == 401


@pytest.mark.parametrize("kid", [STRANGER.kid, RSA.kid])
def test_nothing_is_fetched_from_where_a_token_points(client, kid):
    with serving(STRANGER.jwk(), STRANGER.jwk(kid=RSA.kid)) as strangers:
        for name, make in list(OWN_KEYS.items())[:7]:
            forged = STRANGER.token(header=make(strangers) | {"kid": kid})
            assert (name, status(client, forged)) == (name, 401)
        assert strangers.fetches == 0


@pytest.mark.parametrize("part", ["header", "claims"])
def test_a_payload_that_is_not_in_base64_is_401(client, part):
    """RFC 7797: what is signed would be another thing than what is read."""
    header = {"b64": False} | ({"crit": ["b64"]} if part == "header" else {})
    assert status(client, RSA.token(header=header)) == 401


# The key has one algorithm


@pytest.mark.parametrize("named", ["HS256", "RS256"])
@pytest.mark.parametrize("secret", [KEY, OCT["k"], ""], ids=["key", "its base64", "nothing"])
def test_a_shared_secret_in_the_set_verifies_nothing(client, named, secret):
    forged = sign({"alg": named, "kid": "oct"}, payload(), secret.encode(), "HS256")
    assert status(client, forged) == 401


@every_key
def test_hmac_with_a_published_key_as_its_secret_is_401(client, ours):
    for secret in [ours.pem.encode(), ours.pem.strip().encode(), str(ours.jwk()).encode()]:
        for named in ["HS256", ours.algorithm]:
            forged = sign({"alg": named, "kid": ours.kid}, payload(), secret, "HS256")
            assert status(client, forged) == 401


OTHER_RSA = ["RS384", "RS512", "PS256", "PS384", "PS512"]


@pytest.mark.parametrize("other", OTHER_RSA)
def test_another_algorithm_of_the_right_key_is_401(client, other):
    """A key with a published algorithm verifies no other, and a header must tell the truth."""
    assert status(client, RSA.token(header={"alg": other}, signed=other)) == 401
    for ours in [RSA, RSA_TOO]:
        assert status(client, ours.token(signed=other)) == 401
        assert status(client, ours.token(header={"alg": other})) == 401


@pytest.mark.parametrize("algorithm", ["RS256", *OTHER_RSA])
def test_an_rsa_key_without_alg_verifies_every_rsa(client, algorithm):
    """``alg`` is optional in a JWK. Entra, for example, publishes its RSA keys without it."""
    text = RSA_TOO.token(header={"alg": algorithm}, signed=algorithm)
    assert status(client, text) == 200


@pytest.mark.parametrize("algorithm", ["HS256", "ES256", "EdDSA", "none", "RS1"])
def test_an_rsa_key_without_alg_verifies_only_rsa(client, algorithm):
    """No other family of algorithms is opened by a missing ``alg``."""
    assert status(client, RSA_TOO.token(header={"alg": algorithm})) == 401


def test_one_kid_may_be_published_for_two_algorithms(trust):
    """A key that is published twice, once for each of its algorithms, verifies both."""
    with serving(RSA.jwk(alg="RS256"), RSA.jwk(alg="PS256")) as provider:
        client = trust(provider)
        assert status(client, RSA.token()) == 200
        assert status(client, RSA.token(header={"alg": "PS256"}, signed="PS256")) == 200
        assert status(client, RSA.token(header={"alg": "RS384"}, signed="RS384")) == 401


@every_key
def test_a_header_with_another_algorithm_is_401(client, ours):
    """A header with another algorithm than its key's is refused, even if the signature is valid."""
    odd = ["none", "None", "rs256", "RS512", "PS256", "HS256", "RS256", "ES256", "EdDSA", None, ...]
    for named in odd:
        if named != ours.algorithm:
            assert (named, status(client, ours.token(header={"alg": named}))) == (named, 401)


def test_a_key_verifies_only_its_published_algorithm(trust):
    """A key that is published for RS512 does not verify an RS256 token."""
    with serving(RSA.jwk(alg="RS512"), RSA_TOO.jwk()) as provider:
        client = trust(provider)
        assert status(client, RSA_TOO.token()) == 200
        assert status(client, RSA.token()) == 401


# Keys that are skipped


def small():
    return Signer("RS256", rsa.generate_private_key(65537, 1024), "odd")


def curve(kind):
    return Signer("ES256", ec.generate_private_key(kind), "odd")


def agreement():
    """A key that agrees on secrets and signs nothing."""
    public = x25519.X25519PrivateKey.generate().public_key().public_bytes_raw()
    return {"kty": "OKP", "crv": "X25519", "x": encode(public), "kid": "odd"}


ODD = signer("RS256", "odd")
ODD_KEYS = {
    "for encryption": lambda: ODD.jwk(use="enc"),
    "for RSA-OAEP": lambda: ODD.jwk(use="enc", alg="RSA-OAEP"),
    "for RSA-OAEP, use unsaid": lambda: ODD.jwk(use=..., alg="RSA-OAEP"),
    "no kid": lambda: ODD.jwk(kid=...),
    "kid null": lambda: ODD.jwk(kid=None),
    "kid empty": lambda: ODD.jwk(kid=""),
    "kid list": lambda: ODD.jwk(kid=["odd"]),
    "kid object": lambda: ODD.jwk(kid={"odd": 1}),
    "null": lambda: None,
    "text": lambda: "odd",
    "number": lambda: 1,
    "list": list,
    "empty": dict,
    "kid alone": lambda: {"kid": "odd"},
    "kty missing": lambda: ODD.jwk(kty=...),
    "kty unknown": lambda: ODD.jwk(kty="AKP"),
    "kty number": lambda: ODD.jwk(kty=1),
    "kty list": lambda: ODD.jwk(kty=["RSA"]),
    "alg unknown": lambda: ODD.jwk(alg="RS1"),
    "alg number": lambda: ODD.jwk(alg=256),
    "alg list": lambda: ODD.jwk(alg=["RS256"]),
    "alg none": lambda: ODD.jwk(alg="none"),
    "n missing": lambda: ODD.jwk(n=...),
    "n empty": lambda: ODD.jwk(n=""),
    "n number": lambda: ODD.jwk(n=65537),
    "n null": lambda: ODD.jwk(n=None),
    "n no base64": lambda: ODD.jwk(n="\u00e4\u00f6\u00fc!"),
    "n even": lambda: ODD.jwk(n=encode(b"\xfe" * 256)),
    "e zero": lambda: ODD.jwk(e="AA"),
    "e one": lambda: ODD.jwk(e="AQ"),
    "RSA of 1024 bits": lambda: small().jwk(),
    "EC off its curve": lambda: EC.jwk(kid="odd", x=encode(b"\1" * 32)),
    "EC curve unknown": lambda: EC.jwk(kid="odd", crv="P-255"),
    "EC point short": lambda: EC.jwk(kid="odd", y=encode(b"\1" * 31)),
    "Ed25519 short": lambda: ED.jwk(kid="odd", x=encode(b"\1" * 31)),
    "secp256k1": lambda: curve(ec.SECP256K1()).jwk(),
    "X25519": agreement,
    "secret": lambda: OCT | {"kid": "odd"},
    "secret without alg": lambda: {"kty": "oct", "kid": "odd", "k": OCT["k"]},
}


@pytest.mark.parametrize("make", ODD_KEYS.values(), ids=ODD_KEYS)
def test_an_unusable_key_in_the_set_is_skipped(trust, make):
    """The service skips an unusable key of the set and still accepts tokens of the other keys."""
    with serving(RSA.jwk(), make(), EC.jwk()) as provider:
        client = trust(provider)
        assert status(client, RSA.token()) == 200
        assert status(client, EC.token()) == 200
        for kid in ["odd", "", None, ...]:
            assert status(client, ODD.token(header={"kid": kid})) == 401


def test_a_small_rsa_key_s_own_tokens_are_401(trust):
    weak = small()
    with serving(weak.jwk(), RSA.jwk()) as provider:
        client = trust(provider)
        assert status(client, RSA.token()) == 200
        assert status(client, weak.token()) == 401


@every_key
def test_a_private_key_in_a_set_verifies_nothing(trust, ours):
    """Every reader of the set could sign with a private key, so no token is trusted by it."""
    with serving(ours.jwk(d="AAAA"), STRANGER.jwk()) as provider:
        assert status(trust(provider), ours.token()) == 401
