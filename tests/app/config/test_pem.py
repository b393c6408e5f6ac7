"""JWT_PUBLIC_KEY and JWT_PUBLIC_KEY_FILE: accepted and refused public keys."""

import subprocess
import sys

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from app.config.settings import ROOT
from tests.support.key_settings import MODES, every_mode, names, refusal, settings, write
from tests.support.keys import MAKERS, signer
from tests.support.settings import KEY, child_environ


@every_mode
@pytest.mark.parametrize("algorithm", MAKERS)
def test_a_public_key_is_read_from_a_variable_or_a_file(mode, algorithm, tmp_path):
    pem = signer(algorithm).pem
    assert settings(mode, JWT_PUBLIC_KEY=pem).jwt_public_key.algorithm == algorithm
    path = write(tmp_path, pem)
    assert settings(mode, JWT_PUBLIC_KEY_FILE=path).jwt_public_key.algorithm == algorithm


FORMS = {
    "literal \\n": lambda pem: pem.replace("\n", "\\n"),
    "no newline at the end": str.rstrip,
    "white space around": lambda pem: f"\n  \n{pem}\n\n",
    "CR LF": lambda pem: pem.replace("\n", "\r\n"),
}


@every_mode
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_pem_is_read_however_its_lines_end(mode, form):
    found = settings(mode, JWT_PUBLIC_KEY=form(signer("ES256").pem))
    assert found.jwt_public_key.algorithm == "ES256"


def test_settings_with_a_public_key_do_not_show_it():
    pem = signer("RS256").pem
    shown = repr(settings("development", JWT_PUBLIC_KEY=pem))
    assert all(line not in shown for line in pem.splitlines()[1:-1])


def private_pem(key, form=PrivateFormat.PKCS8, encryption=None):
    return key.private_bytes(Encoding.PEM, form, encryption or NoEncryption()).decode()


def public_pem(key):
    known = key.public_key()
    return known.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def openssh(key):
    known = key.public_key()
    return known.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def shuffled(pem):
    """The frame of a PEM around something else."""
    first, *body, last = pem.splitlines()
    return "\n".join([first, *reversed(body), last])


NO_PUBLIC_KEYS = {
    "private RSA": lambda: private_pem(signer("RS256").private),
    "private RSA, PKCS 1": lambda: private_pem(
        signer("RS256").private, PrivateFormat.TraditionalOpenSSL
    ),
    "private P-256": lambda: private_pem(signer("ES256").private),
    "private P-256, SEC 1": lambda: private_pem(
        signer("ES256").private, PrivateFormat.TraditionalOpenSSL
    ),
    "private Ed25519": lambda: private_pem(signer("EdDSA").private),
    "private, OpenSSH": lambda: private_pem(signer("EdDSA").private, PrivateFormat.OpenSSH),
    "private, encrypted": lambda: private_pem(
        signer("ES256").private, encryption=BestAvailableEncryption(b"password")
    ),
    "public, then private": lambda: signer("ES256").pem + private_pem(signer("ES256").private),
    "private, then public": lambda: private_pem(signer("ES256").private) + signer("ES256").pem,
    "RSA of 1024 bits": lambda: public_pem(rsa.generate_private_key(65537, 1024)),
    "RSA of 2040 bits": lambda: public_pem(rsa.generate_private_key(65537, 2040)),
    "P-384": lambda: public_pem(ec.generate_private_key(ec.SECP384R1())),
    "P-521": lambda: public_pem(ec.generate_private_key(ec.SECP521R1())),
    "secp256k1": lambda: public_pem(ec.generate_private_key(ec.SECP256K1())),
    "DSA": lambda: public_pem(dsa.generate_private_key(1024)),
    "X25519": lambda: public_pem(x25519.X25519PrivateKey.generate()),
    "OpenSSH": lambda: openssh(signer("EdDSA").private),
    "garbage": lambda: "no key at all, but a password perhaps",
    "only a frame": lambda: "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n",
    "shuffled": lambda: shuffled(signer("RS256").pem),
    "cut": lambda: signer("RS256").pem[:200],
    "a secret": lambda: KEY,
    "a path": lambda: "/etc/ssl/idp-public-key.pem",
    "a JWK": lambda: '{"kty":"oct","k":"c2VjcmV0"}',
}


def repeats(message, text):
    """Whether a word of the text, but for the PEM's frame, stands in the message."""
    lines = [line for line in text.splitlines() if not line.startswith("-----")]
    return any(line and line in message for line in lines)


@every_mode
@pytest.mark.parametrize("make", NO_PUBLIC_KEYS.values(), ids=NO_PUBLIC_KEYS)
def test_an_invalid_public_key_is_refused_by_name(mode, make, tmp_path):
    """The error for an invalid public key names the variable and does not repeat the value."""
    text = make()
    message = refusal(mode, JWT_PUBLIC_KEY=text)
    assert "JWT_PUBLIC_KEY" in names(message)
    assert not repeats(message, text)
    message = refusal(mode, JWT_PUBLIC_KEY_FILE=write(tmp_path, text))
    assert "JWT_PUBLIC_KEY_FILE" in names(message)
    assert not repeats(message, text)


def binary(folder):
    (folder / "key.der").write_bytes(signer("ES256").public(Encoding.DER) + b"\xff\xfe")
    return folder / "key.der"


NO_FILES = {
    "missing": lambda folder: folder / "missing.pem",
    "a folder": lambda folder: folder,
    "below a file": lambda folder: f"{write(folder, 'x')}/key.pem",
    "empty": lambda folder: write(folder, ""),
    "DER": binary,
}


@every_mode
@pytest.mark.parametrize("make", NO_FILES.values(), ids=NO_FILES)
def test_a_key_file_that_cannot_be_read_is_refused_by_name(mode, make, tmp_path):
    message = refusal(mode, JWT_PUBLIC_KEY_FILE=str(make(tmp_path)))
    assert "JWT_PUBLIC_KEY_FILE" in names(message)


@every_mode
def test_a_private_key_stops_the_process(mode):
    """A private key as JWT_PUBLIC_KEY stops gunicorn with one line that does not show the key."""
    pem = private_pem(signer("RS256").private)
    variables = {"APP_ENV": mode, "JWT_PUBLIC_KEY": pem} | MODES[mode]
    done = subprocess.run(
        [sys.executable, "-m", "gunicorn", "wsgi:app"],
        cwd=ROOT,
        env=child_environ(variables.pop("DATABASE_URL"), **variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert done.stdout == ""
    (message,) = done.stderr.splitlines()
    assert "JWT_PUBLIC_KEY" in names(message)
    assert not repeats(message, pem)
