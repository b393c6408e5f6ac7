"""Claims of a verified token: its kind, its organization, its scopes and its client.

Claims are untrusted JSON of any type. Each function here accepts every value.
"""

import re
from collections.abc import Mapping, Sequence, Set
from typing import Any

from app.errors import ForbiddenError, UnauthorizedError
from app.ids import is_id

EVENTS_WRITE, EVENTS_WRITE_ANY = "events:write", "events:write:any"
AGENTS_WRITE = "agents:write"
ANALYTICS_READ, ANALYTICS_READ_ANY = "analytics:read", "analytics:read:any"
ANALYTICS_ADMIN = "analytics:admin"
# A token may have thousands of scopes. Only these are kept, because tokens are cached.
KNOWN_SCOPES = frozenset(
    {
        *(EVENTS_WRITE, EVENTS_WRITE_ANY, AGENTS_WRITE),
        *(ANALYTICS_READ, ANALYTICS_READ_ANY, ANALYTICS_ADMIN),
    }
)
_MAX_NAME = 255
# The most organizations that a person can choose from.
MAX_ORGANIZATIONS = 500

Claims = Mapping[str, Any]

# An issuer signs other kinds of token with the same keys. Cognito names the kind in token_use,
# Keycloak in typ (its Offline tokens are refresh tokens), Casdoor in tokenType, others otherwise.
_KIND_CLAIMS = ("token_use", "typ", "type", "token_type", "tokenType", "tokenName")
_OTHER_KIND = re.compile(r"((serialized-)?id|refresh|offline|logout)([ _-]?token)?", re.IGNORECASE)
_ACCESS_KIND = re.compile(r"(access|bearer|dpop)([ _-]?token)?", re.IGNORECASE)
# Hashes of the tokens that were issued beside an ID token. No other kind has them.
_ID_TOKEN_CLAIMS = ("at_hash", "c_hash", "s_hash")
_ACCESS_TYPES = ("at+jwt", "application/at+jwt")
_HEADER_TYPES = ("jwt", *_ACCESS_TYPES)
# Header members that choose a key, or (crit) demand rules that this service does not know.
_REFUSED_MEMBERS = ("jku", "jwk", "x5u", "x5c", "crit")
_NOT_ACCESS = "the token must be an access token, not an ID or refresh token"
_INVALID = "the token is invalid; use a new access token"
_ABSENT = object()


def check_header(header: Mapping[str, Any], *, require_at_jwt: bool) -> None:
    """Refuse a header that is not one of an access token, or that chooses its own key.

    Args:
        require_at_jwt: accept only the type of RFC 9068, ``at+jwt``.

    Raises:
        UnauthorizedError: the header is refused.
    """
    kind = header.get("typ", "JWT")
    accepted = _ACCESS_TYPES if require_at_jwt else _HEADER_TYPES
    if not isinstance(kind, str) or kind.lower() not in accepted:
        raise UnauthorizedError(_INVALID, cause="header typ")
    for name in _REFUSED_MEMBERS:
        if name in header:
            raise UnauthorizedError(_INVALID, cause=f"header {name}")


def check_kind_claims(claims: Claims) -> None:
    """Refuse a token that says that it is an ID, refresh or logout token.

    Raises:
        UnauthorizedError: the token is of another kind.
    """
    for name in _KIND_CLAIMS:
        if _OTHER_KIND.fullmatch(str(claims.get(name))):
            raise UnauthorizedError(_NOT_ACCESS, cause=f"claim {name}")


def check_signs_of_kind(header: Mapping[str, Any], claims: Claims) -> None:
    """Refuse an ID or logout token that does not name its kind, as far as it can be told apart.

    Raises:
        UnauthorizedError: the token has a claim that no access token has.
    """
    for name in _ID_TOKEN_CLAIMS:
        if name in claims:
            raise UnauthorizedError(_NOT_ACCESS, cause=f"claim {name}")
    events = claims.get("events")
    # A logout token, or another security event (RFC 8417).
    if isinstance(events, dict) and any("schemas.openid.net" in name for name in events):
        raise UnauthorizedError(_NOT_ACCESS, cause="claim events")
    # Older versions of Keycloak repeat the nonce in access tokens, and name these Bearer.
    if "nonce" in claims and not _says_access(header, claims):
        raise UnauthorizedError(_NOT_ACCESS, cause="claim nonce")


def _says_access(header: Mapping[str, Any], claims: Claims) -> bool:
    if str(header.get("typ")).lower() in _ACCESS_TYPES:
        return True
    return any(_ACCESS_KIND.fullmatch(str(claims.get(name))) for name in _KIND_CLAIMS)


def organization_of(claims: Claims, name: str) -> str | None:
    """The organization in the claim ``name``; ``None`` without the claim.

    The claim is an id, or as at Keycloak a list of one id, or an object with one member: the name
    is the id, and the value an object.

    Raises:
        ForbiddenError: the claim is something else.
    """
    found = _find(claims, name)
    if found is _ABSENT:
        return None
    if isinstance(found, dict) and all(isinstance(value, dict) for value in found.values()):
        found = list(found)
    if isinstance(found, list):
        if len(found) > 1:
            raise ForbiddenError(
                "the token names several organizations; use a token of one organization",
                cause="several organizations",
            )
        found = found[0] if found else None
    if not is_id(found):
        raise ForbiddenError(
            "the token's organization is invalid; it must be 1 to 255 characters without control"
            " characters",
            cause="organization",
        )
    return str(found)


def organizations_of(claims: Claims, name: str) -> tuple[str, ...]:
    """The organizations of a person in the claim ``name``; none without the claim.

    The claim is an id, a list of ids, or an object whose names are the ids.

    Raises:
        ForbiddenError: the claim is something else, or names too many.
    """
    found = _find(claims, name)
    if found is _ABSENT:
        return ()
    if isinstance(found, dict):
        found = list(found)
    named = found if isinstance(found, list) else [found]
    if not all(is_id(one) for one in named):
        raise ForbiddenError(
            "your organization at the identity provider is invalid; it must be 1 to 255 characters"
            " without control characters",
            cause="organization",
        )
    if len(named) > MAX_ORGANIZATIONS:
        raise ForbiddenError(
            f"the identity provider names more than {MAX_ORGANIZATIONS} organizations of yours",
            cause="too many organizations",
        )
    return tuple(dict.fromkeys(named))


def has_claim(claims: Claims, name: str) -> bool:
    """Whether the claim of a configured name is there."""
    return _find(claims, name) is not _ABSENT


def has_value(claims: Claims, name: str, values: Set[str]) -> bool:
    """Whether the claim ``name`` has one of ``values``.

    The claim is a text, a list of texts, or an object whose names are the values, as at Zitadel.
    """
    found = _find(claims, name)
    named = found if isinstance(found, list | dict) else [found]
    return any(isinstance(one, str) and one in values for one in named)


def scopes_of(claims: Claims, names: Sequence[str]) -> frozenset[str]:
    """The scopes of this service in the first claim that is present.

    The claim is text with spaces (RFC 8693, 4.2), or a list, as ``scope`` at Spring and Duende and
    ``scp`` at Okta.
    """
    values = (_find(claims, name) for name in names)
    found = next((value for value in values if value is not _ABSENT), None)
    if isinstance(found, str):
        return KNOWN_SCOPES.intersection(found.split(" "))
    if isinstance(found, list):
        return KNOWN_SCOPES.intersection(item for item in found if isinstance(item, str))
    return frozenset()


def text_of(claims: Claims, *names: str) -> str:
    """The first of these claims that is a name: text, cut to 255 characters, or a whole number.

    Empty without any. A name is for logs, and decides nothing.
    """
    for name in names:
        value = claims.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if isinstance(value, str) and is_id(value[:_MAX_NAME]):
            return value[:_MAX_NAME]
    return ""


def client_of(claims: Claims) -> str:
    """The client that a token was issued to, by the claims that name it; empty without them.

    An id that is too long to be kept whole counts as absent, since it would not be one client's.
    """
    name = text_of(claims, "client_id", "azp")
    return name if len(name) < _MAX_NAME else ""


def is_of_person(claims: Claims, client_id: str) -> bool:
    """Whether a token is of a person, as far as its claims tell: its subject is not its client.

    Auth0 writes a client's subject as ``CLIENT@clients``. django-oauth-toolkit names a person in
    ``username`` alone.
    """
    names = (text_of(claims, "sub"), text_of(claims, "username"))
    return any(name not in ("", client_id, f"{client_id}@clients") for name in names)


def set_claim(claims: dict[str, Any], name: str, value: str) -> None:
    """Set the claim of a configured name; a JSON pointer sets a member of nested objects."""
    *parents, last = _steps(name) if name.startswith("/") else [name]
    for step in parents:
        claims = claims.setdefault(step, {})
    claims[last] = value


def _find(claims: Claims, name: str) -> Any:
    """The claim of a configured name: a name as it is, a JSON pointer, or a dotted path.

    A step that is missing makes the claim absent. A step into text or a number makes it ``None``:
    it is there, but invalid.
    """
    if name in claims:
        return claims[name]
    found: Any = claims
    for step in _steps(name):
        if isinstance(found, Mapping):
            found = found.get(step, _ABSENT)
        elif isinstance(found, list):
            is_index = step.isascii() and step.isdigit() and len(step) < 10
            found = found[int(step)] if is_index and int(step) < len(found) else _ABSENT
        else:
            return None
        if found is _ABSENT:
            break
    return found


def _steps(name: str) -> list[str]:
    if name.startswith("/"):  # RFC 6901
        return [step.replace("~1", "/").replace("~0", "~") for step in name[1:].split("/")]
    # A URL, as at Auth0, is one name although it has dots.
    return [name] if "://" in name else name.split(".")
