"""With a public key, only its holder's tokens are let in, by the key's own algorithm."""

import hashlib
import hmac
import json

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from tests.support.keys import MAKERS, Signer, encode, sign, signer
from tests.support.services import service_of
from tests.support.settings import TENANT, make_settings
from tests.support.tokens import payload, token

READ = "/api/v1/analytics/tokens"
KEYS = {algorithm: signer(algorithm) for algorithm in MAKERS}
# What else an RSA key can sign with; P-256 and Ed25519 have one algorithm each.
RSA_OTHERS = ["RS384", "RS512", "PS256", "PS384", "PS512"]
HEADERS = ["RS256", "RS512", "PS256", "ES256", "ES384", "ES512", "ES256K", "EdDSA", "HS256"]
ODD = ["rs256", "es256", "eddsa", "Ed25519", "EDDSA", "", " ", "RS256 ", None, 256, True, [], {}]


@pytest.fixture(scope="module", params=MAKERS)
def ours(request):
    """The provider whose key the service trusts."""
    return KEYS[request.param]


@pytest.fixture(scope="module")
def app(shared_sqlite_url, ours):
    """One service for a whole kind of key: nothing is ever stored."""
    with service_of(make_settings(shared_sqlite_url, JWT_PUBLIC_KEY=ours.pem)) as app:
        yield app


def status(client, text):
    """The status of a read; a refusal is checked for its form."""
    answer = client.get(READ, headers={"Authorization": f"Bearer {text}"})
    if answer.status_code != 200:
        assert answer.json["code"] == "UNAUTHORIZED"
        assert answer.headers["WWW-Authenticate"].startswith('Bearer error="invalid_token"')
    return answer.status_code


def test_a_token_signed_with_the_private_key_is_let_in(client, ours):
    answer = client.get(READ, headers=ours.bearer("org-of-the-token"))
    assert (answer.status_code, answer.json["tenantId"]) == (200, "org-of-the-token")


def test_a_key_file_and_escaped_text_are_equivalent(shared_sqlite_url, ours, tmp_path):
    r"""A key in a file and a key with literal `\n` verify the same tokens."""
    path = tmp_path / "idp.pem"
    path.write_text(ours.pem)
    escaped = ours.pem.replace("\n", "\\n")
    for given in [{"JWT_PUBLIC_KEY_FILE": str(path)}, {"JWT_PUBLIC_KEY": escaped}]:
        with service_of(make_settings(shared_sqlite_url, **given)) as app:
            assert status(app.test_client(), ours.token()) == 200
            assert status(app.test_client(), token()) == 401


def test_a_single_key_is_used_whatever_the_provider_calls_it(client, ours):
    assert status(client, ours.token(header={"kid": "2026-04"})) == 200


def test_a_token_of_another_holder_of_such_a_key_is_401(client, ours):
    stranger = Signer(ours.algorithm, MAKERS[ours.algorithm]())
    assert status(client, stranger.token()) == 401


def test_a_token_of_another_kind_of_key_is_401(client, ours):
    for algorithm, other in KEYS.items():
        if algorithm != ours.algorithm:
            assert status(client, other.token()) == 401
            assert status(client, other.token(header={"alg": ours.algorithm})) == 401


@pytest.mark.parametrize("ours", ["RS256"], indirect=True)
def test_another_algorithm_of_the_right_key_is_401(client, ours):
    for other in RSA_OTHERS:
        assert status(client, ours.token(header={"alg": other}, signed=other)) == 401
        assert status(client, ours.token(signed=other)) == 401


def test_a_header_with_another_algorithm_is_401(client, ours):
    """A header with another algorithm than its key's is refused, even if the signature is valid."""
    for named in [*HEADERS, *ODD, ...]:
        if named != ours.algorithm:
            assert (named, status(client, ours.token(header={"alg": named}))) == (named, 401)


# The public key is no secret


SECRETS = {
    "PEM": lambda key: key.pem.encode(),
    "PEM without the last newline": lambda key: key.pem.strip().encode(),
    "PEM with literal \\n": lambda key: key.pem.replace("\n", "\\n").encode(),
    "PEM with CR LF": lambda key: key.pem.replace("\n", "\r\n").encode(),
    "base64": lambda key: "".join(key.pem.splitlines()[1:-1]).encode(),
    "DER": lambda key: key.public(Encoding.DER),
    "JWK": lambda key: json.dumps(key.jwk()).encode(),
    "nothing": lambda _key: b"",
    "None": lambda _key: b"None",
}


def test_hmac_with_the_public_key_as_its_secret_is_401(client, ours):
    for name, secret in SECRETS.items():
        for algorithm in ["HS256", "HS384", "HS512"]:
            for named in [algorithm, ours.algorithm]:
                forged = sign({"alg": named, "typ": "JWT"}, payload(), secret(ours), algorithm)
                assert (name, named, status(client, forged)) == (name, named, 401)


def test_hmac_with_a_secret_of_another_service_is_401(client):
    assert status(client, token()) == 401


NONES = ["none", "None", "NONE", "nOnE", "none ", " none", "none\0", "n\u043ene", "null"]


def test_a_token_without_a_signature_is_401(client, ours):
    for spelling in NONES:
        unsigned = f"{encode({'alg': spelling, 'typ': 'JWT'})}.{encode(payload())}."
        signature = ours.token().rpartition(".")[2]
        hashed = encode(hmac.digest(b"", unsigned[:-1].encode(), hashlib.sha256))
        for forged in [unsigned, unsigned[:-1], unsigned + signature, unsigned + hashed]:
            assert (spelling, status(client, forged)) == (spelling, 401)


def test_another_token_s_signature_is_401(client, ours):
    honest, other = ours.token(TENANT), ours.token("org-of-a-victim")
    assert status(client, other.rpartition(".")[0] + "." + honest.rpartition(".")[2]) == 401


def test_a_signature_of_nothing_is_401(client, ours):
    """Among them r = s = 0 for ECDSA, raw and in DER."""
    for signature in [b"", b"\0" * 64, b"\0" * 256, b"0\x06\x02\x01\0\x02\x01\0"]:
        assert status(client, f"{ours.token().rpartition('.')[0]}.{encode(signature)}") == 401
