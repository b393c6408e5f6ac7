"""``flask events follow``, ``flask events pull`` and ``flask sources``: logs of providers."""

from pathlib import Path
from typing import Any

import click

from app.cli.base import EX_TEMPFAIL, Command, Group, json_option

_FILE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)
# The options that a followed and a pulled log share.
_SHARED = (
    click.option("--mapping", type=_FILE, metavar="FILE", help="A TOML file that describes it."),
    click.option("--zone", metavar="ZONE", help="The zone of times without an offset."),
    click.option("--organization", metavar="ORG", help="The organization of all events."),
    click.option(
        "--organizations",
        "table",
        type=_FILE,
        metavar="FILE",
        help="A TOML file with your organization for each of the provider's.",
    ),
    click.option(
        "--rejects",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Append each refused record to FILE.",
    ),
)


def _shared(command: Any) -> Any:
    for option in reversed(_SHARED):
        command = option(command)
    return command


@click.command(
    cls=Command,
    examples=[
        "flask events follow --format keycloak --zone UTC /var/log/keycloak/keycloak.log",
        "flask events follow --format native --organization org-a /srv/idp/a.log /srv/idp/b.log",
    ],
    interrupted="every whole line so far is stored; run it again",
    exits={0: "stopped by SIGTERM or Ctrl-C, after the current transaction"},
)
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE...",
)  # fmt: skip
@click.option("--format", "name", metavar="NAME", help="The format of the lines.")
@_shared
def follow(files: tuple[Path, ...], name: str | None, table: Path | None, **options: Any) -> None:
    """Store the events of each log FILE as they are written, until it is stopped.

    A file is followed across its rotation: by a new name, by copy and truncation, and compressed.
    The position is stored with the events, so nothing is lost or doubled by a restart. The first
    start reads FILE from its begin. A refused line is logged, and the next one is read.
    """
    # Most commands read no source, and the imports take time.
    from app.cli import source_runs  # noqa: PLC0415

    source_runs.follow(files, name, table, options)


@click.command(
    cls=Command,
    examples=[
        "flask events pull auth0 --url https://acme.eu.auth0.com --secret-file acme.toml",
        "flask events pull keycloak --url https://sso.example/realms/acme --secret-file sso.toml",
        "SOURCES_FILE=/etc/agentidp/sources.toml flask events pull okta",
    ],
    interrupted="the pages so far are stored; run it again for the rest",
    exits={EX_TEMPFAIL: "the provider is unavailable or limits the rate; run it again later"},
)
@click.argument("provider", metavar="PROVIDER|NAME")
@click.option("--url", metavar="URL", help="The address of the provider's API.")
@click.option(
    "--secret-file",
    type=_FILE,
    metavar="FILE",
    help="A TOML file with token, or with client_id and client_secret.",
)
@click.option("--name", metavar="NAME", help="The name of the position; default: the provider.")
@click.option("--since", metavar="DATE", help="How far back the first pull begins.")
@click.option("--overlap", metavar="TIME", help="How much each pull reads again, as 5m.")
@_shared
@json_option
def pull(
    provider: str, name: str | None, table: Path | None, *, as_json: bool, **options: Any
) -> None:
    """Store the new events of a PROVIDER's log: auth0, okta, keycloak, zitadel or entra-graph.

    A pull begins a little before the newest record of the last one, and ends with the log. The
    cursor is stored with each page. Run it by a timer, or name the source in SOURCES_FILE. Without
    --url it pulls the source that has this NAME there.
    """
    # Most commands read no source, and the imports take time.
    from app.cli import source_runs  # noqa: PLC0415

    source_runs.pull(provider, name, table, options, as_json=as_json)


@click.group(cls=Group)
def sources() -> None:
    """Followed files and pulled logs."""


@sources.command(examples=["flask sources status", "flask sources status --json"])
@json_option
def status(as_json: bool) -> None:
    """Show how far each source is read, what its records were, and why it failed, if it did."""
    # Most commands read no source, and the imports take time.
    from app.cli import source_runs  # noqa: PLC0415

    source_runs.status(as_json=as_json)
