"""Settings of an organization: days off, the price of tokens, and how long a token lives.

Detection reads them: a day off is judged as a Sunday, and an agent that asks too often is named
with the tokens that it could save, and with their price.
"""

import re
from datetime import date, datetime
from functools import lru_cache
from typing import Annotated, Any, cast

import msgspec
import sqlalchemy as sa
from msgspec import Meta
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql, sqlite

from app.detection import Options
from app.errors import ValidationError
from app.intake.agent_names import TokenLifetime
from app.intake.events import InvalidEvent, decode_event, prepared, refuse_nul, wrong_member
from app.storage.audit import record_change
from app.storage.database import Database
from app.storage.tables import organization_settings

MAX_DATES = 1000
# The first and the last year whose holidays the library knows for every country.
YEARS = range(1970, 2101)

_CURRENCY = "^[A-Z]{3}$"
_COUNTRY = "^[A-Z]{2}$"


class DaysOff(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """Days that are judged as Sundays: the public holidays of a country, and dates."""

    country: Annotated[
        Annotated[str, Meta(pattern=_COUNTRY)] | None,
        Meta(description="ISO 3166-1: two letters, as DE"),
    ] = None
    subdivision: Annotated[
        Annotated[str, Meta(min_length=1, max_length=50)] | None,
        Meta(description="A part of the country, as ISO 3166-2 has it behind the hyphen: BY"),
    ] = None
    dates: Annotated[list[date], Meta(max_length=MAX_DATES)] = []


class Price(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """The price of 1,000 tokens."""

    per_thousand: Annotated[float, Meta(ge=0, le=1e9)]
    currency: Annotated[str, Meta(pattern=_CURRENCY, description="ISO 4217: three letters, as EUR")]


@prepared
class OrganizationSettings(msgspec.Struct, rename="camel", forbid_unknown_fields=True, frozen=True):
    """The settings of an organization. Null, or a member that is left out, is not set."""

    days_off: DaysOff | None = None
    price: Price | None = None
    token_lifetime: TokenLifetime | None = None


def parse_settings(text: bytes, max_bytes: int) -> OrganizationSettings:
    """The settings in a body.

    Raises:
        ValidationError: the body is invalid, or a country or subdivision is unknown.
    """
    try:
        if len(text) > max_bytes:
            raise InvalidEvent("", f"is larger than {max_bytes} bytes")
        decode_event(text, ("daysOff", "price", "tokenLifetime"))
        # The values of an event have no fractions, so the text is decoded again.
        found = _SETTINGS.decode(text)
        refuse_nul(text)
        if found.days_off is not None:
            _refuse_unknown_places(found.days_off)
    except msgspec.ValidationError as error:
        raise _invalid(_wrong_member(error)) from None
    except InvalidEvent as problem:
        raise _invalid(problem) from None
    return _tidied(found)


def settings_of(connection: Connection, tenant_id: str) -> OrganizationSettings:
    """The settings of an organization; empty ones if it has set none."""
    row = connection.execute(_READ, {"tenant_id": tenant_id}).one_or_none()
    return OrganizationSettings() if row is None else read_settings(row)


def read_settings(row: Any) -> OrganizationSettings:
    """The settings in a row of their table."""
    return OrganizationSettings(
        _DAYS_OFF.decode(row.days_off) if row.days_off else None,
        _PRICE.decode(row.price) if row.price else None,
        row.token_lifetime,
    )


def options_of(
    settings: OrganizationSettings, token_lifetime: int, days_off: frozenset[date] = frozenset()
) -> Options:
    """The settings as detection takes them, without names and agents' lifetimes.

    Args:
        token_lifetime: the lifetime of tokens where the organization has set none.
    """
    price = settings.price
    return Options(
        days_off=days_off,
        token_lifetime=settings.token_lifetime or token_lifetime,
        price_per_thousand=None if price is None else price.per_thousand,
        currency="" if price is None else price.currency,
    )


def options_between(row: Any, first: date, last: date) -> Options:
    """The settings in a row of their table, with the days off from ``first`` to ``last``.

    For projections, which need no lifetime of tokens.
    """
    settings = read_settings(row)
    return options_of(settings, 0, dates_off(settings.days_off, first, last))


def store_settings(
    database: Database, tenant_id: str, settings: OrganizationSettings, now: datetime, *, by: str
) -> None:
    """Replace the settings of an organization.

    Args:
        by: the actor, for the audit log.
    """
    values = {
        "days_off": _text(settings.days_off),
        "price": _text(settings.price),
        "token_lifetime": settings.token_lifetime,
        "changed_at": now,
    }
    upsert = postgresql.insert if database.is_postgresql else sqlite.insert
    insert = upsert(organization_settings).values(tenant_id=tenant_id, **values)
    statement = insert.on_conflict_do_update(index_elements=["tenant_id"], set_=values)

    def work(connection: Connection) -> None:
        database.name_tenants(connection, {tenant_id})
        connection.execute(statement)
        record_change(
            connection,
            tenant_id=tenant_id,
            actor=by,
            action="settings.changed",
            subject=tenant_id,
            details=msgspec.to_builtins(settings),
            at=now,
        )

    database.write(work)


def dates_off(days_off: DaysOff | None, first: date, last: date) -> frozenset[date]:
    """The days off from ``first`` to ``last``."""
    if days_off is None:
        return frozenset()
    days = set(days_off.dates)
    if days_off.country is not None:
        years = range(max(first.year, YEARS.start), min(last.year + 1, YEARS.stop))
        days |= _holidays(days_off.country, days_off.subdivision, years)
    return frozenset(day for day in days if first <= day <= last)


def _refuse_unknown_places(days_off: DaysOff) -> None:
    """Refuse a country or subdivision without known holidays.

    Raises:
        InvalidEvent: it names the member.
    """
    if days_off.country is None:
        if days_off.subdivision is not None:
            raise InvalidEvent("daysOff.subdivision", "needs a country")
        return
    # Imported here, because it takes 0.1 s, and few processes need it.
    import holidays  # noqa: PLC0415

    known = holidays.list_supported_countries(include_aliases=False)
    subdivisions = known.get(days_off.country)
    if subdivisions is None:
        raise InvalidEvent("daysOff.country", "must be a country of ISO 3166-1, as DE or US")
    if days_off.subdivision is not None and days_off.subdivision not in subdivisions:
        some = f"must be one of {', '.join(subdivisions)}" if subdivisions else "must be left out"
        raise InvalidEvent("daysOff.subdivision", f"{some} for {days_off.country}")


@lru_cache(maxsize=64)
def _holidays(country: str, subdivision: str | None, years: range) -> frozenset[date]:
    import holidays  # noqa: PLC0415 - as above

    try:
        found = holidays.country_holidays(country, subdiv=subdivision, years=years)
    except NotImplementedError:  # a later version of the library no longer knows the place
        return frozenset()
    return frozenset(cast("dict[date, str]", found))


def _tidied(settings: OrganizationSettings) -> OrganizationSettings:
    """The same settings, with each date once, in order."""
    if settings.days_off is None:
        return settings
    dates = sorted(set(settings.days_off.dates))
    days_off = msgspec.structs.replace(settings.days_off, dates=dates)
    return msgspec.structs.replace(settings, days_off=days_off)


def _wrong_member(error: msgspec.ValidationError) -> InvalidEvent:
    """As :func:`wrong_member`, also for members of members."""
    match = _NESTED.fullmatch(str(error))
    if match is None:
        return wrong_member(error)
    message = match["message"]
    if "matching regex" in message:
        message = "must be a code in capital letters"
    return InvalidEvent(match["field"], message)


def _invalid(problem: InvalidEvent) -> ValidationError:
    return ValidationError(f"the settings are invalid: {problem}", {"field": problem.field})


def _text(value: DaysOff | Price | None) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()


_READ = sa.select(organization_settings).where(
    organization_settings.c.tenant_id == sa.bindparam("tenant_id", type_=sa.Text)
)
_NESTED = re.compile(r"(?P<message>.+) - at `\$\.(?P<field>[^`]+\.[^`]+)`")
_SETTINGS = msgspec.json.Decoder(OrganizationSettings)
_DAYS_OFF = msgspec.json.Decoder(DaysOff)
_PRICE = msgspec.json.Decoder(Price)
