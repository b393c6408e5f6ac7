"""An identity provider that answers as a test tells it: well, wrongly, slowly, or without end.

It speaks HTTP on loopback for what the service asks. What the browser would ask, the test calls,
unless there is a real browser.
"""

import base64
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from jwt.algorithms import RSAAlgorithm
from werkzeug.test import TestResponse

from tests.support.code_flow import OIDC
from tests.support.pages import Browser, place

LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
CLIENT = "dashboard"
ACCESS = "an-opaque-access-token"
# A status, headers and a body; or a function that writes to the socket itself.
Answer = tuple[int, dict[str, str], bytes]
Behaviour = Answer | Callable[[BaseHTTPRequestHandler], None]


@cache
def key(name: str = "first") -> RSAPrivateKey:
    """A key for all tests, because making one takes a while."""
    return generate_private_key(65537, 2048)


def jwk(private: RSAPrivateKey, **members: Any) -> dict[str, Any]:
    """The public key as a member of a key set."""
    return RSAAlgorithm.to_jwk(private.public_key(), as_dict=True) | members


@dataclass
class Asked:
    """A request of the service."""

    path: str
    form: dict[str, str]
    headers: dict[str, str]


@dataclass
class ScriptedProvider:
    """The provider, serving between ``with`` and its end.

    Attributes:
        described: more members of its metadata; ``None`` leaves one out.
        claims: more claims of the next ID tokens; ``None`` leaves one out.
        info: the claims of userinfo.
        token: more members of the token endpoint's answers; ``None`` leaves one out.
        refreshes: whether it gives refresh tokens, a new one for each that is used.
        instead: what it answers at a path, in place of its own answer.
        asked: what the service has asked.
        codes_asked: what each authorization request has asked, also after its code is redeemed.
        signs: makes the ID token of claims; by default with its key.
    """

    described: dict[str, Any] = field(default_factory=dict)
    claims: dict[str, Any] = field(default_factory=lambda: {"orgs": "org-a"})
    info: dict[str, Any] = field(default_factory=dict)
    token: dict[str, Any] = field(default_factory=dict)
    refreshes: bool = False
    instead: dict[str, Behaviour] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    codes_asked: list[dict[str, str]] = field(default_factory=list)
    refresh_tokens: dict[str, str] = field(default_factory=dict)
    subject: str = "ada"
    signs: Callable[[dict[str, Any]], str] | None = None

    def __enter__(self) -> Self:
        provider = self
        key()  # now, because a request has little time

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider._answer(self)

            def do_POST(self) -> None:
                provider._answer(self)

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def reset(self) -> None:
        """Forget what the tests before have said and asked."""
        self.__init__()  # type: ignore[misc]  # a dataclass's own defaults

    def variables(self, **more: str) -> dict[str, str]:
        """The settings of a service whose people sign in here."""
        return {
            "OIDC_ISSUER": self.url,
            "OIDC_CLIENT_ID": CLIENT,
            "OIDC_ORGANIZATION_CLAIM": "orgs",
        } | more

    def metadata(self) -> dict[str, Any]:
        whole = {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/jwks",
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "userinfo_endpoint": f"{self.url}/userinfo",
        } | self.described
        return {name: value for name, value in whole.items() if value is not None}

    def consent(self, url: str, **more: str) -> str:
        """Where the browser is sent after the person has signed in, from an authorization URL."""
        asked = dict(parse_qsl(urlsplit(url).query))
        code = f"code-{len(self.codes_asked)}"
        self.codes[code] = asked
        self.codes_asked.append(asked)
        return (
            f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']} | more)}"
        )

    def refuse(self, url: str, error: str) -> str:
        """The same when the provider answers with an error."""
        asked = dict(parse_qsl(urlsplit(url).query))
        return f"{asked['redirect_uri']}?{urlencode({'error': error, 'state': asked['state']})}"

    def sign(self, claims: dict[str, Any], **header: Any) -> str:
        """A token with these claims, by the provider's key."""
        whole = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(whole, key(), "RS256", headers={"kid": "first", **header})

    def logout_token(self, **claims: Any) -> str:
        """A logout token of this moment (Back-Channel Logout 1.0, 2.4)."""
        now = int(time.time())
        whole = {"iss": self.url, "aud": CLIENT, "iat": now, "exp": now + 120, "jti": "j1"}
        whole |= {"events": {LOGOUT_EVENT: {}}, "sub": self.subject}
        return self.sign(whole | claims, typ="logout+jwt")

    def forms(self, path: str) -> list[dict[str, str]]:
        """The forms that the service has sent to a path."""
        return [one.form for one in self.asked if one.path == path]

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = urlsplit(handler.path).path
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0))).decode()
        form = {name: values[0] for name, values in parse_qs(body).items()}
        self.asked.append(Asked(path, form, dict(handler.headers)))
        answer = self.instead.get(path)
        if path in ("/authorize", "/bye"):
            answer = (302, {"Location": self._place(handler.path)}, b"")
        if answer is None:
            with self._lock:
                document, status = self._document(path, form)
            answer = (status, {"Content-Type": "application/json"}, json.dumps(document).encode())
        if not isinstance(answer, tuple):
            answer(handler)
            return
        status, headers, content = answer
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    def _place(self, asked: str) -> str:
        """Where a browser is sent that comes here itself; nobody must press anything."""
        if asked.startswith("/bye"):
            return parse_qs(urlsplit(asked).query)["post_logout_redirect_uri"][0]
        return self.consent(self.url + asked)

    def _document(self, path: str, form: dict[str, str]) -> tuple[Any, int]:
        if path.endswith("/openid-configuration"):
            return self.metadata(), 200
        if path == "/jwks":
            return {"keys": [jwk(key(), kid="first", alg="RS256", use="sig")]}, 200
        if path == "/userinfo":
            return {"sub": self.subject} | self.info, 200
        if path == "/token":
            return self._tokens(form)
        return {}, 200 if path == "/revoke" else 404

    def _tokens(self, form: dict[str, str]) -> tuple[Any, int]:
        nonce = None
        if form.get("grant_type") == "refresh_token":
            if self.refresh_tokens.pop(form.get("refresh_token", ""), None) is None:
                return {"error": "invalid_grant"}, 400
        else:
            asked = self.codes.pop(form.get("code", ""), None)
            if asked is None or asked["redirect_uri"] != form.get("redirect_uri"):
                return {"error": "invalid_grant"}, 400
            challenge = base64.urlsafe_b64encode(sha256(form["code_verifier"].encode()).digest())
            if challenge.decode().rstrip("=") != asked["code_challenge"]:
                return {"error": "invalid_grant"}, 400
            nonce = asked["nonce"]
        # PyJWT reads this clock, and tests move only that of time.time().
        now = int(datetime.now(UTC).timestamp())
        claims = {"iss": self.url, "aud": CLIENT, "sub": self.subject, "iat": now, "exp": now + 600}
        claims |= {"nonce": nonce, **self.claims}
        answer = {
            "access_token": ACCESS,
            "token_type": "Bearer",
            "expires_in": 300,
            "id_token": (self.signs or self.sign)(claims),
        }
        if self.refreshes:
            answer["refresh_token"] = f"refresh-{len(self.asked)}"
            self.refresh_tokens[answer["refresh_token"]] = self.subject
        answer |= self.token
        return {name: value for name, value in answer.items() if value is not None}, 200


def sign_in(provider: ScriptedProvider, browser: Browser, **more: str) -> TestResponse:
    """The whole way to the provider and back."""
    back = provider.consent(place(browser.get(OIDC)), **more)
    return browser.get(back.removeprefix(browser.base))
