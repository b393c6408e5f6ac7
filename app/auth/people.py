"""People: which organizations and scopes the identity provider's claims give a person."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.auth import claims as reading
from app.auth.tokens import verify_issued_token
from app.config.settings import Settings
from app.errors import ForbiddenError


@dataclass(frozen=True)
class Person:
    """A person, and what the identity provider lets them do.

    ``organizations`` is empty for an operator without an own one. ``expires``: when the access
    token ends that names the organization; ``None`` if claims name it.
    """

    subject: str
    organizations: tuple[str, ...]
    scopes: frozenset[str]
    expires: float | None = None

    def tenant(self, chosen: str | None = None) -> str | None:
        """The organization that the pages show: the only one, or the one that was chosen before."""
        if chosen in self.organizations:
            return chosen
        return self.organizations[0] if len(self.organizations) == 1 else None


def names_of_claims(settings: Settings) -> list[str]:
    """The claims about a person that the settings name."""
    rules = (settings.oidc_admin_claim, settings.oidc_operator_claim)
    names = [rule.claim for rule in rules if rule is not None]
    if settings.oidc_organization_claim is not None:
        names.append(settings.oidc_organization_claim)
    return names


def person_of(
    subject: str, claims: Mapping[str, Any], access_token: str | None, settings: Settings
) -> Person:
    """The person of a sign-in.

    Args:
        claims: of the verified ID token and of userinfo.
        access_token: names the organization if no claim of a person is configured.

    Raises:
        ForbiddenError: the person has no organization here, or it is invalid.
        UnauthorizedError: the access token is not accepted.
        UnavailableError: there are no keys to verify it.
    """
    scopes = set()
    if _has(claims, settings.oidc_admin_claim):
        scopes |= {reading.ANALYTICS_ADMIN, reading.AGENTS_WRITE}
    if _has(claims, settings.oidc_operator_claim):
        scopes.add(reading.ANALYTICS_READ_ANY)
    expires = None
    if settings.oidc_organization_claim is not None:
        named = reading.organizations_of(claims, settings.oidc_organization_claim)
    else:
        caller = verify_issued_token(access_token or "")
        named = () if caller.tenant_id is None else (caller.tenant_id,)
        scopes |= caller.scopes
        expires = caller.expires
    if not named and reading.ANALYTICS_READ_ANY not in scopes:
        raise ForbiddenError(
            "your account has no organization here; ask the administrator of the identity provider",
            cause="no organization",
        )
    return Person(subject, named, frozenset(scopes), expires)


def _has(claims: Mapping[str, Any], rule: Any) -> bool:
    return rule is not None and reading.has_value(claims, rule.claim, rule.values)
