"""Settings of the organization: days off, the price of tokens, and how long a token lives."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec
from flask import Response, g, request
from werkzeug.wrappers import Response as Redirect

from app.intake import organization_settings
from app.web.context import connection, services
from app.web.pages.settings import base
from app.web.pages.settings.base import NEW, Form

# The fields of the form, by the members of the API's body.
_FIELDS = {
    "daysOff.country": "country",
    "daysOff.subdivision": "subdivision",
    "daysOff": "dates",
    "price.perThousand": "price",
    "price": "currency",
    "tokenLifetime": "lifetime",
}

bp = base.blueprint("organization")


@bp.get("")
def page() -> Response:
    """The settings of the organization."""
    return _page(NEW)


@bp.post("")
def change() -> Redirect:
    """Replace the settings of the organization."""
    base.on_problem(_page, _FIELDS)
    body = msgspec.json.encode(_body(request.form))
    settings = organization_settings.parse_settings(body, services().settings.max_event_bytes)
    organization_settings.store_settings(
        services().database, g.tenant_id, settings, services().clock(), by=g.caller.subject
    )
    return base.done("settings_organization.page")


def _page(form: Form) -> Response:
    stored = organization_settings.settings_of(connection(), g.tenant_id)
    # As people write it, without an exponent.
    price = stored.price and f"{Decimal(repr(stored.price.per_thousand)):f}"
    return base.page(
        "organization.html",
        form,
        stored=stored,
        price_text=price,
        default_lifetime=services().settings.token_lifetime_seconds,
    )


def _body(form: Mapping[str, str]) -> dict[str, Any]:
    """The form as the API's body. An empty field takes the value back.

    Raises:
        ValidationError: a number is none.
    """
    given = {name: text.strip() for name, text in form.items()}
    country, subdivision = given.get("country", ""), given.get("subdivision", "")
    # Commas and lines, as people write lists of dates.
    dates = given.get("dates", "").replace(",", " ").split()
    days_off = {
        "country": country.upper() or None,
        "subdivision": subdivision.upper() or None,
        "dates": dates,
    }
    price = _price(given.get("price", ""), given.get("currency", ""))
    lifetime = None
    if given.get("lifetime"):
        lifetime = base.number("lifetime", "the lifetime of a token", 1, 366 * 86_400)
    return {
        "daysOff": days_off if country or subdivision or dates else None,
        "price": price,
        "tokenLifetime": lifetime,
    }


def _price(text: str, currency: str) -> dict[str, Any] | None:
    """The price in the form.

    Raises:
        ValidationError: it is no number, or one of its two fields is empty.
    """
    if not text and not currency:
        return None
    whole, _, rest = text.partition(".")
    digits = whole + rest
    if not (digits.isascii() and digits.isdigit()) or len(whole) > 9 or len(rest) > 12:
        raise base.wrong("price", "the price must be a number, as 2.50")
    if not currency:
        raise base.wrong("currency", "a price needs a currency, as EUR")
    return {"perThousand": float(text), "currency": currency.upper()}
