"""Signatures of messages, as Standard Webhooks defines them, and the secrets of endpoints.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md

A secret is derived from ``SECRET_KEY``, the id of the endpoint and the number of its rotations. So
the database has no secrets.
"""

import base64
import hmac
from collections.abc import Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import NamedTuple

PREFIX = "whsec_"
# How long the former secret is valid after a rotation.
BOTH_VALID = timedelta(hours=24)


class SigningKeys(NamedTuple):
    """``SECRET_KEY``, and its former values."""

    current: str
    former: tuple[str, ...] = ()


class Rotation(NamedTuple):
    """The endpoint of a secret, the number of the secret, and when that began."""

    tenant_id: str
    endpoint_id: str
    number: int
    since: datetime | None


def secret_of(keys: SigningKeys, rotation: Rotation) -> str:
    """The newest secret of an endpoint, as its receiver needs it: ``whsec_`` and base64."""
    secret = _secret(keys.current, rotation, rotation.number)
    return PREFIX + base64.b64encode(secret).decode()


def signed_headers(
    keys: SigningKeys, rotation: Rotation, message_id: str, body: bytes, now: datetime
) -> dict[str, str]:
    """The headers of a message: its id, the time of the attempt, and its signatures.

    There is one signature for each secret that is valid, the newest first.
    """
    timestamp = str(int(now.timestamp()))
    signed = b".".join((message_id.encode(), timestamp.encode(), body))
    numbers = [rotation.number]
    if rotation.since is not None and now - rotation.since < BOTH_VALID and rotation.number > 1:
        numbers.append(rotation.number - 1)
    signatures = [
        _signature(_secret(key, rotation, number), signed)
        for key in (keys.current, *keys.former)
        for number in numbers
    ]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(signatures),
    }


def _secret(key: str, rotation: Rotation, number: int) -> bytes:
    # The lengths are fixed or stated by the separator, which no id contains.
    parts: Sequence[str] = ("webhook secret", rotation.tenant_id, rotation.endpoint_id, str(number))
    return hmac.digest(key.encode(), "\x00".join(parts).encode(), sha256)


def _signature(secret: bytes, signed: bytes) -> str:
    return "v1," + base64.b64encode(hmac.digest(secret, signed, sha256)).decode()
