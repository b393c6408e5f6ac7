"""django-oauth-toolkit on loopback, for the tests of sign-in and of machines' tokens.

The parts between the marks are those of docs/identity-providers/django-oauth-toolkit.md. The rest
is for tests: people and clients, and commands that change keys and end sessions. It needs a folder
as its argument, and prints a line with its address when it is ready.
"""

import json
import sys
import threading
import time
import uuid
from pathlib import Path
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import django
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from django.conf import settings
from django.core.management import call_command

FOLDER = Path(sys.argv[1])


def new_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, *form).decode()


LOGIN = """<form method="post">{% csrf_token %}{{ form }}<button>Log in</button></form>"""
settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": FOLDER / "idp.db"}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "oauth2_provider",
    ],
    LOGIN_URL="/login/",
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="a secret of the tests",
    # Of the tests: cookies of all ports of this host are one, so each program has other names.
    SESSION_COOKIE_NAME="idp_session",
    CSRF_COOKIE_NAME="idp_csrf",
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                ]
            },
        }
    ],
    USE_TZ=True,
    # Of the page: begin
    OAUTH2_PROVIDER={
        "OIDC_ENABLED": True,
        "OIDC_RSA_PRIVATE_KEY": new_key(),
        "OIDC_RP_INITIATED_LOGOUT_ENABLED": True,
        "OIDC_RP_INITIATED_LOGOUT_ALWAYS_PROMPT": False,
        "OAUTH2_VALIDATOR_CLASS": f"{__name__}.Validator",
        "ACCESS_TOKEN_GENERATOR": f"{__name__}.access_token",
        # By default, a refresh token is made by the same generator, and passes as an access token.
        "REFRESH_TOKEN_GENERATOR": "oauthlib.oauth2.rfc6749.tokens.random_token_generator",
        "SCOPES": {
            "openid": "Sign in",
            "events:write": "Write events",
            "introspection": "Introspect tokens",
        },
        "DEFAULT_SCOPES": ["openid"],
    },
    # Of the page: end
)
sys.modules["provider"] = sys.modules[__name__]
django.setup()

from django.contrib.auth.models import Group, User  # noqa: E402
from django.contrib.auth.views import LoginView  # noqa: E402
from django.contrib.sessions.models import Session  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import HttpRequest, HttpResponse, JsonResponse  # noqa: E402
from django.template import engines  # noqa: E402
from django.urls import include, path  # noqa: E402
from django.views.decorators.csrf import csrf_exempt  # noqa: E402
from jwcrypto import jwt  # noqa: E402
from oauth2_provider.models import (  # noqa: E402
    AccessToken,
    Application,
    RefreshToken,
)
from oauth2_provider.oauth2_validators import OAuth2Validator  # noqa: E402
from oauth2_provider.settings import oauth2_settings  # noqa: E402
from oauth2_provider.utils import jwk_from_pem  # noqa: E402
from oauthlib.oauth2.rfc6749.tokens import random_token_generator  # noqa: E402

# Of the page: begin
API = "https://analytics.example.com"
ORGANIZATIONS = {"forwarder": "org-a"}  # of the clients whose tokens are JWTs


def access_token(request):
    """A JWT for the clients above, and an opaque token for all others."""
    client = request.client.client_id
    if client not in ORGANIZATIONS:
        return random_token_generator(request)
    now = int(time.time())
    claims = {
        "iss": oauth2_settings.oidc_issuer(request),
        "aud": API,
        "sub": client,
        "client_id": client,
        "organization_id": ORGANIZATIONS[client],
        "scope": " ".join(request.scopes),
        "iat": now,
        "exp": now + request.expires_in,
        "jti": str(uuid.uuid4()),
    }
    key = jwk_from_pem(oauth2_settings.OIDC_RSA_PRIVATE_KEY)
    header = {"alg": "RS256", "typ": "at+jwt", "kid": key.thumbprint()}
    token = jwt.JWT(header=header, claims=claims)
    token.make_signed_token(key)
    return token.serialize()


class Validator(OAuth2Validator):
    oidc_claim_scope = None  # claims of people do not depend on scopes

    def get_additional_claims(self, request):
        groups = request.user.groups.values_list("name", flat=True)
        return {
            "organizations": [name for name in groups if name.startswith("org-")],
            "groups": list(groups),
        }


# Of the page: end

PEOPLE = {"ada": ["org-a"], "bob": ["org-a", "org-b", "analytics-admins"], "eve": []}
PASSWORD = "correct horse"


class Login(LoginView):
    def render_to_response(self, context, **_options):
        text = engines["django"].from_string(LOGIN).render(context, self.request)
        return HttpResponse(text)


seconds = {"AccessToken": 3600}
oauth2_settings.EXTRA_SERVER_KWARGS = {"token_expires_in": lambda _request: seconds["AccessToken"]}


def client(given: dict) -> None:
    """Create or change the client of the service under test."""
    Application.objects.filter(client_id=given["client_id"]).delete()
    Application(
        client_type="confidential",
        authorization_grant_type="authorization-code",
        algorithm="RS256",
        skip_authorization=True,
        **given,
    ).save()


def rotate(_given: dict) -> None:
    """Sign with a new key; the old one is still published."""
    old = oauth2_settings.OIDC_RSA_PRIVATE_KEY
    oauth2_settings.OIDC_RSA_PRIVATE_KEY = new_key()
    oauth2_settings.OIDC_RSA_PRIVATE_KEYS_INACTIVE = [old]


def revoke(_given: dict) -> None:
    """End every person's session and tokens, as an administrator does it."""
    for model in (Session, RefreshToken, AccessToken):
        model.objects.all().delete()


def live(given: dict) -> None:
    """Let the next access tokens live for so many seconds."""
    seconds.update(given)


@csrf_exempt
def control(request: HttpRequest, name: str) -> JsonResponse:
    commands = {each.__name__: each for each in (client, rotate, revoke, live)}
    commands[name](json.loads(request.body))
    return JsonResponse({})


urlpatterns = [
    path("o/", include("oauth2_provider.urls", namespace="oauth2_provider")),
    path("login/", Login.as_view()),
    path("control/<str:name>", control),
]


def fill() -> None:
    call_command("migrate", verbosity=0)
    for name, groups in PEOPLE.items():
        person = User.objects.create_user(name, password=PASSWORD)
        person.groups.set([Group.objects.get_or_create(name=group)[0] for group in groups])
    for name in ("forwarder", "plain", "analytics-api"):
        Application(
            client_id=name,
            client_secret="a+secret/with%signs",
            client_type="confidential",
            authorization_grant_type="client-credentials",
            algorithm="RS256",
        ).save()


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Silent(WSGIRequestHandler):
    def log_message(self, *_arguments: object) -> None:
        return


fill()
server = Server(("127.0.0.1", 0), Silent)
server.set_app(get_wsgi_application())
threading.Thread(target=server.serve_forever, daemon=True).start()
address = f"http://127.0.0.1:{server.server_port}"
print(json.dumps({"issuer": f"{address}/o", "control": f"{address}/control"}), flush=True)
sys.stdin.read()
