"""What Authlib leaves to an issuer: its clients, its user, its codes and its tokens' claims."""

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2 import OAuth2Request
from authlib.oauth2.rfc6749 import AuthorizationCodeMixin, ClientMixin, InvalidRequestError
from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant, BaseGrant, ClientCredentialsGrant
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oauth2.rfc9068 import JWTBearerTokenGenerator
from authlib.oidc.core import UserInfo
from authlib.oidc.core.grants import OpenIDCode
from flask import Flask
from joserfc.jwk import KeySet

if TYPE_CHECKING:
    from tests.support.idp import Issuer

SCOPES = ("openid", "profile", "email", "events:write", "events:write:any")
AUTH_METHODS = ("client_secret_basic", "client_secret_post", "none")
TOKEN_SECONDS = 600


@dataclass(frozen=True)
class Client(ClientMixin):
    """A registered client; one without a secret is public."""

    client_id: str
    grant_type: str
    secret: str = ""
    scopes: tuple[str, ...] = SCOPES

    def get_client_id(self) -> str:
        return self.client_id

    def get_default_redirect_uri(self) -> None:
        return None

    def get_allowed_scope(self, scope: str | None) -> str:
        return " ".join(name for name in (scope or "").split() if name in self.scopes)

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        """Loopback on any port (RFC 8252, 7.3): a service under test binds a free one."""
        return urlsplit(redirect_uri).hostname == "127.0.0.1"

    def check_client_secret(self, client_secret: str) -> bool:
        return secrets.compare_digest(self.secret, client_secret)

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return (method == "none") == (not self.secret)

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code" and self.grant_type == "authorization_code"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == self.grant_type


MACHINE = Client("machine", "client_credentials", "secret-of-the-machine")
DASHBOARD = Client("dashboard", "authorization_code", "secret-of-the-dashboard")
BROWSER = Client("browser", "authorization_code")


@dataclass(frozen=True)
class User:
    """The one who signs in, always, and consents to everything."""

    name: str = "Ada"

    def get_user_id(self) -> str:
        return "user-1"


@dataclass(frozen=True)
class Code(AuthorizationCodeMixin):
    """What an authorization code stands for."""

    client_id: str
    redirect_uri: str
    scope: str
    nonce: str | None
    code_challenge: str
    code_challenge_method: str = "S256"

    def get_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_scope(self) -> str:
        return self.scope


def authorization_server(app: Flask, issuer: "Issuer") -> AuthorizationServer:
    """Authlib's server with the grants and tokens of ``issuer``."""
    app.config["OAUTH2_SCOPES_SUPPORTED"] = SCOPES

    def save_token(token: dict[str, Any], request: OAuth2Request) -> None:
        if issuer.analytics is not None:
            client: Client = request.client
            issuer.analytics.record_token(client.client_id, agent_name=client.client_id.title())

    server = AuthorizationServer(app, issuer.clients.get, save_token)
    server.issuer = issuer
    server.register_token_generator("default", AccessTokens(issuer))
    server.register_grant(Credentials)
    server.register_grant(CodeGrant, [OpenID(issuer), MandatoryPKCE()])
    return server


class AccessTokens(JWTBearerTokenGenerator):
    """RFC 9068, with the issuer's own claims."""

    def __init__(self, issuer: "Issuer") -> None:
        super().__init__(None, issuer.algorithm, expires_generator=lambda *_: TOKEN_SECONDS)
        self._of = issuer

    def get_jwks(self) -> KeySet:
        return self._of.signing_keys()

    def get_audiences(self, client: Client, user: User | None, scope: str) -> str:
        return self._of.audience

    def get_extra_claims(
        self, client: Client, grant_type: str, user: User | None, scope: str
    ) -> dict[str, Any]:
        # The URL, with its port, is not known yet when this object is made.
        return {"iss": self._of.url, **self._of.claims}


class Credentials(ClientCredentialsGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = AUTH_METHODS[:2]


class CodeGrant(AuthorizationCodeGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = AUTH_METHODS

    def save_authorization_code(self, code: str, request: OAuth2Request) -> None:
        data = request.payload.data
        saved = Code(
            request.client.client_id,
            request.payload.redirect_uri,
            request.scope,
            data.get("nonce"),
            data["code_challenge"],
        )
        self.server.issuer.codes[code] = saved
        self.server.issuer.nonces.add(saved.nonce)

    def query_authorization_code(self, code: str, client: Client) -> Code | None:
        """Taken out at once: a code is good for one attempt."""
        found = self.server.issuer.codes.pop(code, None)
        return found if found and found.client_id == client.client_id else None

    def delete_authorization_code(self, authorization_code: Code) -> None:
        """Nothing is left to delete."""

    def authenticate_user(self, authorization_code: Code) -> User:
        return User()


class OpenID(OpenIDCode):
    """The ID token beside the access token."""

    def __init__(self, issuer: "Issuer") -> None:
        super().__init__()
        self._of = issuer

    def exists_nonce(self, nonce: str, request: OAuth2Request) -> bool:
        return nonce in self._of.nonces

    def resolve_client_private_key(self, client: Client) -> KeySet:
        return self._of.signing_keys()

    def get_client_algorithm(self, client: Client) -> str:
        return self._of.algorithm

    def get_client_claims(self, client: Client) -> dict[str, Any]:
        return {"iss": self._of.url, "aud": [client.client_id]}

    def get_authorization_code_claims(self, authorization_code: Code) -> dict[str, Any]:
        return {"nonce": authorization_code.nonce} if authorization_code.nonce else {}

    def generate_user_info(self, user: User, scope: str) -> UserInfo:
        return UserInfo(sub=user.get_user_id(), name=user.name)


class MandatoryPKCE(CodeChallenge):
    """Authlib demands it of public clients alone, and takes a missing method for ``plain``."""

    def validate_code_challenge(self, grant: BaseGrant, redirect_uri: str) -> None:
        super().validate_code_challenge(grant, redirect_uri)
        data = grant.request.payload.data
        if not data.get("code_challenge") or data.get("code_challenge_method") != "S256":
            raise InvalidRequestError("S256 is required", redirect_uri=redirect_uri)
