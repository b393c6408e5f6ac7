"""``flask webhooks``: where findings of organizations are sent, and what was delivered."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click

from app.alerts import webhooks as endpoints
from app.alerts.signing import SigningKeys, secret_of
from app.alerts.webhooks import (
    COOLDOWN_MINUTES,
    DIGESTS,
    FORMATS,
    KINDS,
    MAX_COOLDOWN_MINUTES,
    MAX_DELIVERIES,
    SEVERITIES,
    Delivery,
    Endpoint,
    EndpointBody,
    Quiet,
)
from app.cli.base import Group, check_organization, json_option, open_database, show, warn
from app.config.settings import Settings
from app.dates import utc_now
from app.errors import RefusedError
from app.storage.audit import shell_user

_COLUMNS = ("id", "format", "url", "kinds", "from severity", "state")
_DELIVERY_COLUMNS = ("created", "event", "state", "attempts", "answer", "next", "error")
_QUIET = "22:00-06:00 Europe/Berlin"

_organization = click.option(
    "--organization", metavar="ORG", required=True, help="The organization of the endpoint."
)
_id = click.argument("endpoint_id", metavar="ID")


@click.group(cls=Group)
def webhooks() -> None:
    """Endpoints that findings are sent to: webhooks, Slack, Microsoft Teams and e-mail.

    On PostgreSQL with separate roles, run these as the owner.
    """


@webhooks.command(
    "list",
    examples=["flask webhooks list --organization org-a"],
)
@_organization
@json_option
def list_endpoints(organization: str, as_json: bool) -> None:
    """List the endpoints of an organization, the oldest first."""
    check_organization(organization)
    with open_database(Settings.from_environ()).reading() as connection:
        found = endpoints.endpoints_of(connection, organization)
    rows = [_cells(one) for one in found]
    text = _table([_COLUMNS, *rows]) if rows else "no endpoints"
    show({"data": [_described(one) for one in found]}, text, as_json=as_json)


@webhooks.command(
    examples=[
        "flask webhooks add --organization org-a https://example.com/hooks",
        "flask webhooks add --organization org-a --format email mailto:ops@example.com",
        "flask webhooks add --organization org-a --kind spike --min-severity warning"
        f" --quiet '{_QUIET}' https://example.com/hooks",
    ],
    interrupted="list the endpoints, and rotate the secret of one that you cannot verify",
)
@_organization
@click.option("--format", "form", type=click.Choice(FORMATS), default="standard")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(KINDS),
    help="Only this kind of findings; may be repeated. By default all.",
)
@click.option(
    "--min-severity", type=click.Choice(SEVERITIES), default="info", help="Only from this one on."
)
@click.option(
    "--cooldown",
    metavar="MINUTES",
    type=click.IntRange(0, MAX_COOLDOWN_MINUTES),
    default=COOLDOWN_MINUTES,
    help="For how long updates of a finding are not sent after a message about it.",
)
@click.option("--quiet", metavar="HOURS", help=f"Hours without messages, as '{_QUIET}'.")
@click.option("--digest", type=click.Choice(DIGESTS), help="Which digest it gets; else none.")
@click.argument("url")
@json_option
def add(  # noqa: PLR0913, PLR0917 - one argument for each option
    organization: str,
    form: str,
    kinds: tuple[str, ...],
    min_severity: str,
    cooldown: int,
    quiet: str | None,
    digest: str | None,
    url: str,
    as_json: bool,
) -> None:
    """Add an endpoint, and print its secret, which verifies what it receives."""
    check_organization(organization)
    settings = Settings.from_environ()
    body = EndpointBody(
        url,
        form,  # type: ignore[arg-type]  # click has checked these three
        list(kinds) or None,
        min_severity,  # type: ignore[arg-type]
        cooldown,
        None if quiet is None else _quiet(quiet),
        digest,  # type: ignore[arg-type]
    )
    created = endpoints.create_endpoint(
        open_database(settings),
        organization,
        body,
        utc_now(),
        rules=endpoints.rules_of(settings),
        by=shell_user(),
    )
    _show_secret(settings, created, as_json=as_json)


@webhooks.command(
    examples=["flask webhooks rotate --organization org-a 7Qm2XcVb9TzK"],
    interrupted="the secret was changed or not; rotate it again to see it",
)
@_organization
@_id
@json_option
def rotate(organization: str, endpoint_id: str, as_json: bool) -> None:
    """Give an endpoint a new secret and print it. The former one is valid for 24 hours."""
    check_organization(organization)
    settings = Settings.from_environ()
    found = endpoints.rotate_secret(
        open_database(settings), organization, endpoint_id, utc_now(), by=shell_user()
    )
    _show_secret(settings, _known(found), as_json=as_json)


@webhooks.command(
    examples=["flask webhooks delete --organization org-a 7Qm2XcVb9TzK"],
    interrupted="the endpoint is deleted or not; check it with `flask webhooks list`",
)
@_organization
@_id
@json_option
def delete(organization: str, endpoint_id: str, as_json: bool) -> None:
    """Delete an endpoint with its messages, also those that wait."""
    check_organization(organization)
    database = open_database(Settings.from_environ())
    found = endpoints.delete_endpoint(
        database, organization, endpoint_id, utc_now(), by=shell_user()
    )
    show(_described(_known(found)), f"{endpoint_id}: deleted", as_json=as_json)


@webhooks.command(
    examples=["flask webhooks test --organization org-a 7Qm2XcVb9TzK"],
    interrupted="the message waits or not; check it with `flask webhooks deliveries`",
)
@_organization
@_id
@json_option
def test(organization: str, endpoint_id: str, as_json: bool) -> None:
    """Add a test message to the outbox. The jobs send it within seconds."""
    check_organization(organization)
    database = open_database(Settings.from_environ())
    message_id = endpoints.send_test(
        database, organization, endpoint_id, utc_now(), by=shell_user()
    )
    if message_id is None:
        raise _unknown()
    text = f"{message_id}: waits; see `flask webhooks deliveries`"
    show({"id": message_id}, text, as_json=as_json)


@webhooks.command(
    examples=["flask webhooks deliveries --organization org-a 7Qm2XcVb9TzK"],
)
@_organization
@_id
@click.option("--limit", type=click.IntRange(1, MAX_DELIVERIES), default=50, show_default=True)
@json_option
def deliveries(organization: str, endpoint_id: str, limit: int, as_json: bool) -> None:
    """Show the last messages of an endpoint, the newest first. They are kept for 30 days."""
    check_organization(organization)
    with open_database(Settings.from_environ()).reading() as connection:
        _known(endpoints.endpoint(connection, organization, endpoint_id))
        found = endpoints.deliveries(connection, organization, endpoint_id, limit)
    rows = [_delivery_cells(one) for one in found]
    text = _table([_DELIVERY_COLUMNS, *rows]) if rows else "no deliveries"
    show({"data": [one._asdict() for one in found]}, text, as_json=as_json)


def _quiet(text: str) -> Quiet:
    hours, _, zone = text.partition(" ")
    begin, _, end = hours.partition("-")
    try:
        datetime.strptime(begin, "%H:%M")  # noqa: DTZ007 - a time of day
        datetime.strptime(end, "%H:%M")  # noqa: DTZ007
    except ValueError:
        raise click.UsageError(f"--quiet must be as '{_QUIET}'") from None
    return Quiet(begin.zfill(5), end.zfill(5), zone)


def _known(found: Endpoint | None) -> Endpoint:
    if found is None:
        raise _unknown()
    return found


def _unknown() -> RefusedError:
    return RefusedError(
        "the organization has no endpoint with this id; `flask webhooks list` shows all ids"
    )


def _show_secret(settings: Settings, found: Endpoint, *, as_json: bool) -> None:
    if found.format == "email":
        show(_described(found), found.id, as_json=as_json)
        return
    keys = SigningKeys(settings.secret_key, settings.secret_key_fallbacks)
    secret = secret_of(keys, found.secret_number)
    show({"secret": secret, **_described(found)}, f"{found.id}  {secret}", as_json=as_json)
    if not as_json:
        warn("This secret is shown only once. `flask webhooks rotate` makes another one.")


def _described(one: Endpoint) -> dict[str, Any]:
    quiet = one.quiet
    return {
        "id": one.id,
        "organization": one.tenant_id,
        "url": one.url,
        "format": one.format,
        "kinds": one.kinds,
        "minSeverity": one.min_severity,
        "cooldownMinutes": one.cooldown_minutes,
        "quiet": quiet and {"from": quiet.begin, "to": quiet.end, "zone": quiet.zone},
        "created": one.created,
        "createdBy": one.created_by,
        "disabled": one.disabled,
        "disabledReason": one.disabled_reason,
        "failures": one.failures,
        "pausedUntil": one.paused_until,
    }


def _cells(one: Endpoint) -> tuple[str, ...]:
    state = "enabled" if one.disabled is None else f"disabled: {one.disabled_reason}"
    if one.disabled is None and one.failures:
        state = f"{one.failures} failures"
    kinds = "all" if one.kinds is None else " ".join(one.kinds)
    return one.id, one.format, one.url, kinds, one.min_severity, state


def _delivery_cells(one: Delivery) -> tuple[str, ...]:
    following = "-" if one.next is None else f"{one.next:%Y-%m-%d %H:%M}"
    answer = "-" if one.last_status is None else str(one.last_status)
    created = f"{one.created:%Y-%m-%d %H:%M}"
    return created, one.event, one.status, str(one.attempts), answer, following, one.error or "-"


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
