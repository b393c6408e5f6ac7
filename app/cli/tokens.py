"""``flask tokens``: mint access tokens for development."""

from datetime import timedelta

import click

from app.auth.tokens import mint_token
from app.cli.base import Group, check_organization, json_option, show
from app.config.settings import Settings

YEAR_SECONDS = 366 * 24 * 3600


@click.group(cls=Group)
def tokens() -> None:
    """Access tokens for development."""


@tokens.command(
    examples=[
        "flask tokens mint --organization org-a",
        "flask tokens mint --organization org-a --scope events:write --expires 86400",
    ],
)
@click.option("--organization", required=True, metavar="ORG", help="The organization_id claim.")
@click.option("--scope", "scopes", multiple=True, metavar="S", help="A scope; may be repeated.")
@click.option(
    "--expires",
    type=click.IntRange(1, 10 * YEAR_SECONDS),
    default=3600,
    show_default=True,
    metavar="SECONDS",
    help="How long the token is valid.",
)
@json_option
def mint(organization: str, scopes: tuple[str, ...], expires: int, as_json: bool) -> None:
    """Print a token signed with JWT_SECRET_KEY, nothing else."""
    check_organization(organization)
    token = mint_token(Settings.from_environ(), organization, scopes, timedelta(seconds=expires))
    show({"token": token}, token, as_json=as_json)
