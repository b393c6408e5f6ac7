"""Keys in PEM text: public keys for access tokens, and this service's own private key.

The algorithm follows from the key, never from the token (RFC 8725, 3.1).
"""

from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

MIN_RSA_BITS = 2048


@dataclass(frozen=True)
class PublicKey:
    """A parsed public key and the one algorithm that it verifies."""

    key: RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey
    algorithm: str


@dataclass(frozen=True)
class PrivateKey:
    """A parsed private key and the algorithm that it signs with."""

    key: RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey
    algorithm: str


def parse_private_key(pem: str) -> PrivateKey:
    """A PEM private key without a password, of the kinds of :func:`parse_public_key`.

    Raises:
        ValueError: the text is something else; the message does not repeat it.
    """
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError(
            "is not a PEM private key; it must begin with -----BEGIN PRIVATE KEY-----, and have no"
            " password"
        ) from None
    if isinstance(key, RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey):
        return PrivateKey(key, _algorithm_of(key.public_key()))
    raise ValueError("must be an RSA, P-256 or Ed25519 key")


def parse_public_key(pem: str) -> PublicKey:
    """A PEM public key (``BEGIN PUBLIC KEY``): RSA for RS256, P-256 for ES256, Ed25519 for EdDSA.

    Raises:
        ValueError: the text is something else; the message does not repeat it.
    """
    if "PRIVATE KEY" in pem:
        raise ValueError("holds a private key; give its public key")
    try:
        key = load_pem_public_key(pem.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError(
            "is not a PEM public key; it must begin with -----BEGIN PUBLIC KEY-----"
        ) from None
    if isinstance(key, RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey):
        return PublicKey(key, _algorithm_of(key))
    raise ValueError("must be an RSA, P-256 or Ed25519 key")


def _algorithm_of(key: RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey) -> str:
    if isinstance(key, RSAPublicKey):
        if key.key_size < MIN_RSA_BITS:
            raise ValueError(f"must have at least {MIN_RSA_BITS} bits")
        return "RS256"
    if isinstance(key, Ed25519PublicKey):
        return "EdDSA"
    if isinstance(key.curve, SECP256R1):
        return "ES256"
    raise ValueError("must be an RSA, P-256 or Ed25519 key")
