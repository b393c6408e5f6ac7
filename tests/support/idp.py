"""An OAuth 2 and OpenID Connect issuer for the tests, built on Authlib.

It speaks HTTP on loopback, as a vendor's does: discovery, keys that rotate or cannot be had,
client credentials for machines, the code flow with PKCE for a person who consents to all.
"""

import json
import threading
import urllib.request
from typing import Any, Self
from urllib.parse import urlencode

from authlib.oauth2 import OAuth2Error
from flask import Flask, Response, jsonify, request
from joserfc.jwk import ECKey, KeySet, RSAKey
from werkzeug.serving import make_server

from agentidp_analytics.client import Client as Analytics
from tests.support.idp_grants import (
    AUTH_METHODS,
    BROWSER,
    DASHBOARD,
    MACHINE,
    SCOPES,
    Client,
    Code,
    User,
    authorization_server,
)

AUDIENCE = "https://analytics.test"
TIMEOUT_SECONDS = 60

# Authlib signs access tokens with joserfc's recommended algorithms only; EdDSA is none of them.
_NEW_KEY = {
    "RS256": lambda about: RSAKey.generate_key(2048, about),
    "ES256": lambda about: ECKey.generate_key("P-256", about),
}


class Issuer:
    """The provider, serving between ``with`` and its end.

    Attributes:
        audience: the ``aud`` of the next access tokens.
        claims: more claims for them, as the organization.
        described: more members of its metadata.
        fetches: how often the keys were asked for, whatever the answer.
        analytics: the client that records every issued token, if there is one.
    """

    def __init__(
        self,
        algorithm: str = "RS256",
        audience: str = AUDIENCE,
        analytics: Analytics | None = None,
    ) -> None:
        self.algorithm = algorithm
        self.audience = audience
        self.analytics = analytics
        self.claims: dict[str, Any] = {"organization_id": "org-a"}
        self.described: dict[str, Any] = {}
        self.clients = {client.client_id: client for client in (MACHINE, DASHBOARD, BROWSER)}
        self.codes: dict[str, Code] = {}
        self.nonces: set[str | None] = set()
        self.fetches = 0
        self._lock = threading.Lock()
        self._hangs = False
        self._there = threading.Event()
        self._there.set()
        self._keys: list[RSAKey | ECKey] = []
        self.rotate()
        self._server = make_server("127.0.0.1", 0, _application(self), threaded=True)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), name="issuer"
        )
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.jwks_url = f"{self.url}/jwks"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.come_back()  # lets go of whoever hangs
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def rotate(self, *, forget: bool = False) -> None:
        """Sign with a new key from now on; ``forget`` takes the old ones back."""
        key = _NEW_KEY[self.algorithm]({"use": "sig", "alg": self.algorithm})
        self._keys = [key] if forget else [*self._keys, key]

    def go_away(self, *, hang: bool = False) -> None:
        """Answer requests for keys with 500, or not at all; tokens can still be had."""
        self._hangs = hang
        self._there.clear()

    def come_back(self) -> None:
        """Undo :meth:`go_away`."""
        self._there.set()

    def signing_keys(self) -> KeySet:
        """A set of one: from a set, joserfc puts the ``kid`` into the token's header."""
        return KeySet(self._keys[-1:])

    def published_keys(self) -> Response:
        """The answer to a request for the keys."""
        with self._lock:
            self.fetches += 1
        if not self._there.is_set():
            if self._hangs:
                self._there.wait(TIMEOUT_SECONDS)
            return Response("away", 500)
        return jsonify(KeySet(self._keys).as_dict(private=False))

    def metadata(self) -> dict[str, Any]:
        """OpenID Connect Discovery 1.0, section 3."""
        return {
            "issuer": self.url,
            "jwks_uri": self.jwks_url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "scopes_supported": SCOPES,
            "response_types_supported": ["code"],
            "grant_types_supported": ["authorization_code", "client_credentials"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [self.algorithm],
            "token_endpoint_auth_methods_supported": AUTH_METHODS,
            "code_challenge_methods_supported": ["S256"],
        } | self.described


def _application(issuer: Issuer) -> Flask:
    app = Flask("idp", static_folder=None)
    server = authorization_server(app, issuer)

    @app.get("/authorize")
    def authorize() -> Response:
        try:
            grant = server.get_consent_grant(end_user=User())
        except OAuth2Error as error:
            return server.handle_error_response(request, error)
        return server.create_authorization_response(grant_user=User(), grant=grant)

    app.get("/.well-known/openid-configuration")(issuer.metadata)
    app.get("/jwks")(issuer.published_keys)
    app.post("/token")(server.create_token_response)
    return app


def client_credentials(issuer: Issuer, scope: str = "", client: Client = MACHINE) -> str:
    """An access token, as a machine fetches it."""
    answer = redeem(issuer, client, grant_type="client_credentials", scope=scope)
    return str(answer["access_token"])


def redeem(issuer: Issuer, client: Client, **grant: str) -> dict[str, Any]:
    """The answer of the token endpoint; HTTPError when it refuses."""
    form = {"client_id": client.client_id, **grant}
    if client.secret:
        form["client_secret"] = client.secret
    body = urlencode(form).encode()
    with urllib.request.urlopen(f"{issuer.url}/token", body, TIMEOUT_SECONDS) as response:
        answer: dict[str, Any] = json.load(response)
    return answer
