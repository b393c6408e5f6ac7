"""Starts node-oidc-provider (npm) and django-oauth-toolkit (PyPI), and installs them before.

Each is installed once into ``build/providers``, from a lock with the hash of each package.
"""

import base64
import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote_plus, urlencode

from app.config.settings import ROOT

INSTALL_SECONDS, TIMEOUT_SECONDS = 300, 30
SOURCES = Path(__file__).parent
# Machines and the client that may introspect.
SECRET = "a+secret/with%signs"  # form-encoding changes these characters
API, OPAQUE = "https://analytics.example.com", "https://opaque.example.com"


class MissingProviderError(Exception):
    """A provider cannot be installed here; the message says why."""


class Running(NamedTuple):
    """A provider that runs.

    Attributes:
        kind: its name.
        issuer: its issuer, also of its own metadata.
    """

    kind: str
    issuer: str
    control: str

    def tell(self, command: str, **given: Any) -> Any:
        """Let it do something that only tests want, as ``rotate``."""
        return post(f"{self.control}/{command}", json.dumps(given).encode())

    def metadata(self) -> dict[str, Any]:
        url = f"{self.issuer}/.well-known/openid-configuration"
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
            found: dict[str, Any] = json.load(response)
        return found

    def machine_token(self, client: str, **form: str) -> str:
        """A token for a machine, by client credentials."""
        url = self.metadata()["token_endpoint"]
        form = {"grant_type": "client_credentials", "scope": "events:write"} | form
        return str(post(url, urlencode(form).encode(), basic(client))["access_token"])

    def introspection(self) -> dict[str, str]:
        """The variables of a service that introspects here."""
        paths = {OIDC_PROVIDER: "token/introspection", DJANGO: "introspect/"}
        return {
            "INTROSPECTION_URL": f"{self.issuer}/{paths[self.kind]}",
            "INTROSPECTION_CLIENT_ID": "analytics-api",
            "INTROSPECTION_CLIENT_SECRET": SECRET,
        }

    def revoke(self, client: str, token: str) -> None:
        """Revoke a token, as its client may (RFC 7009)."""
        paths = {OIDC_PROVIDER: "token/revocation", DJANGO: "revoke_token/"}
        url = f"{self.issuer}/{paths[self.kind]}"
        post(url, urlencode({"token": token}).encode(), basic(client))


def post(url: str, body: bytes, authorization: str = "") -> Any:
    headers = {"Authorization": authorization} if authorization else {}
    request = urllib.request.Request(url, body, headers)
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
        answer = response.read()
    return json.loads(answer) if answer else None


def basic(client: str) -> str:
    pair = f"{quote_plus(client)}:{quote_plus(SECRET)}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


OIDC_PROVIDER, DJANGO = "oidc_provider", "django_toolkit"


def _install_oidc_provider(folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise MissingProviderError("node and npm are missing: node-oidc-provider cannot be started")
    _run([npm, "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund"], folder)


def _install_django(folder: Path) -> None:
    _run([sys.executable, "-m", "venv", "venv"], folder)
    pip = [str(folder / "venv/bin/python"), "-m", "pip", "install", "--quiet"]
    _run([*pip, "--require-hashes", "--no-deps", "-r", "requirements.txt"], folder)


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise MissingProviderError(f"{command[0]} took too long to install a provider") from None
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise MissingProviderError(f"{' '.join(command[:3])} failed: {' '.join(last)}")


_INSTALL: dict[str, Callable[[Path], None]] = {
    OIDC_PROVIDER: _install_oidc_provider,
    DJANGO: _install_django,
}


def installed(kind: str) -> Path:
    """The folder of an installed provider.

    Raises:
        MissingProviderError: it cannot be installed.
    """
    files = sorted(path for path in (SOURCES / kind).iterdir() if path.is_file())
    locks = (path for path in files if path.name in ("package-lock.json", "requirements.txt"))
    lock = hashlib.sha256(b"".join(path.read_bytes() for path in locks))
    folder = ROOT / "build" / "providers" / f"{kind}-{lock.hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "installing").open("w") as alone:
        fcntl.flock(alone, fcntl.LOCK_EX)
        for path in files:
            shutil.copy(path, folder)
        if not (folder / "installed").exists():
            _INSTALL[kind](folder)
            (folder / "installed").touch()
    return folder


@contextmanager
def started(kind: str, data: Path) -> Iterator[Running]:
    """A provider with a new database, ended with the block.

    Raises:
        MissingProviderError: it cannot be installed.
    """
    folder = installed(kind)
    command = {
        OIDC_PROVIDER: [shutil.which("node") or "node", "server.js"],
        DJANGO: [str(folder / "venv/bin/python"), "-W", "ignore", "provider.py", str(data)],
    }[kind]
    log = (data / f"{kind}.log").open("w")
    with (
        log,
        subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                raise AssertionError((data / f"{kind}.log").read_text()[-2000:])
            yield Running(kind, **json.loads(line))
        finally:
            process.kill()
