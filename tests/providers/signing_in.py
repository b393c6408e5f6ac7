"""A person at the browser who signs in at a real provider."""

from typing import Any

import sqlalchemy as sa

from app.storage.tables import page_sessions
from tests.browser.person import Person
from tests.browser.serving import Site
from tests.providers.running import DJANGO, OIDC_PROVIDER, SECRET, Running
from tests.support.pages import SIGNIN

PASSWORD = "correct horse"
FIELDS = {OIDC_PROVIDER: ("login", "password"), DJANGO: ("username", "password")}


def variables(provider: Running, **more: str) -> dict[str, str]:
    """The variables of a service whose people sign in at the provider, as its page has them."""
    scope = {OIDC_PROVIDER: "openid organization", DJANGO: "openid"}
    return {
        "OIDC_ISSUER": provider.issuer,
        "OIDC_CLIENT_ID": "dashboard",
        "OIDC_CLIENT_SECRET": SECRET,
        "OIDC_SCOPE": scope[provider.kind],
        "OIDC_ORGANIZATION_CLAIM": "organizations",
        "OIDC_ADMIN_CLAIM": "groups:analytics-admins",
    } | more


def register(provider: Running, site: Site, **more: Any) -> None:
    """Register the service at the provider, as its page says."""
    callback, leave = f"{site.url}/signin/callback", f"{site.url}/signin"
    client: dict[str, Any] = {"client_id": "dashboard", "client_secret": SECRET}
    if provider.kind == DJANGO:
        client |= {"redirect_uris": callback, "post_logout_redirect_uris": leave}
    else:
        client |= {
            "redirect_uris": [callback],
            "post_logout_redirect_uris": [leave],
            "backchannel_logout_uri": f"{site.url}/signout/backchannel",
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
        }
    provider.tell("client", **(client | more))


class Colleague:
    """A person, the provider, and the service between which they go.

    Args:
        person: sits at the service.
    """

    def __init__(self, person: Person, provider: Running) -> None:
        self.person = person
        self.provider = provider

    def start(self) -> None:
        """From the service's door to the provider's."""
        self.person.open("/dashboard")
        self.person.wait_for(SIGNIN)
        self.person.press("a.button")

    def is_asked_to_log_in(self) -> bool:
        """Whether the provider shows its login page."""
        name, _ = FIELDS[self.provider.kind]
        elsewhere = not self.person.browser.current_url.startswith(self.person.site.url)
        return elsewhere and bool(self.person.all(f"input[name={name}]"))

    def log_in(self, name: str) -> None:
        """Fill in the provider's form, and consent where it asks."""
        person = self.person
        person.until(self.is_asked_to_log_in, lambda: person.browser.current_url)
        for field, text in zip(FIELDS[self.provider.kind], (name, PASSWORD), strict=True):
            person.write(f"input[name={field}]", text)
        person.follow("button")
        if self.provider.kind == OIDC_PROVIDER:
            # Its page for consent has one button, and then it leaves.
            person.until(lambda: self.is_back() or person.all("input[value=consent]"))
            if not self.is_back():
                person.follow("button")
        person.until(self.is_back, lambda: person.browser.current_url)
        person.console()  # what the provider's own pages had to say

    def is_back(self) -> bool:
        return self.person.browser.current_url.startswith(self.person.site.url)

    def sign_in(self, name: str) -> None:
        self.start()
        self.log_in(name)

    def sign_out(self) -> None:
        """From a page of the service, and at the provider, too."""
        person = self.person
        person.press(".bar form button")
        if self.provider.kind == OIDC_PROVIDER:
            person.until(lambda: person.all("button[name=logout]"))
            person.press("button[name=logout]")
        person.wait_for(SIGNIN)
        person.console()

    def organization(self) -> str:
        """The organization that the page shows."""
        return self.person.texts(".tenant")[0]

    def sessions(self) -> list[Any]:
        with self.person.site.database.reading() as connection:
            return list(connection.execute(sa.select(page_sessions)))
