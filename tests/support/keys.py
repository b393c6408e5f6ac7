"""Identity providers' keys, and tokens signed with them, honest ones and others."""

import base64
import functools
import json
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.tokens import payload

MAKERS = {
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}


def encode(part: Any) -> str:
    """A part of a token: bytes as they are, anything else as JSON."""
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def sign(header: Any, claims: Any, key: Any, algorithm: str) -> str:
    """A token signed in truth with ``algorithm``, whatever its header says."""
    signed = f"{encode(header)}.{encode(claims)}"
    signature = jwt.get_algorithm_by_name(algorithm).sign(signed.encode(), key)
    return f"{signed}.{encode(signature)}"


@dataclass(frozen=True)
class Signer:
    """A private key of an identity provider, with its ``kid`` if it has one."""

    algorithm: str
    private: Any
    kid: str | None = None

    def token(self, *arguments: Any, header: Any = None, signed: str = "", **claims: Any) -> str:
        """A token; ``header`` changes members, ``...`` leaves one out; ``signed`` is the truth.

        Other arguments are those of :func:`tests.support.tokens.payload`.
        """
        usual = {"alg": self.algorithm, "typ": "at+jwt", "kid": self.kid or ...}
        members = {name: value for name, value in (usual | (header or {})).items() if value != ...}
        claims = payload(*arguments, **claims)
        return sign(members, claims, self.private, signed or self.algorithm)

    def bearer(self, *arguments: Any, **options: Any) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token(*arguments, **options)}"}

    @property
    def pem(self) -> str:
        """What the service is given as JWT_PUBLIC_KEY."""
        return self.public(Encoding.PEM).decode()

    def public(self, encoding: Encoding) -> bytes:
        form = PublicFormat.SubjectPublicKeyInfo
        found: bytes = self.private.public_key().public_bytes(encoding, form)
        return found

    def jwk(self, **changed: Any) -> dict[str, Any]:
        """What a key set has of this key; a member given as ``...`` is left out."""
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        members = algorithm.to_jwk(self.private.public_key(), as_dict=True)
        # PyJWT says what its own keys are for; a key set says it in "use", if at all.
        members.pop("key_ops", None)
        whole = members | {"kid": self.kid, "use": "sig"} | changed
        return {name: value for name, value in whole.items() if value != ...}


@functools.cache
def signer(algorithm: str, kid: str | None = None) -> Signer:
    """The same key for the same arguments: making one takes its time."""
    return Signer(algorithm, MAKERS[algorithm](), kid)
