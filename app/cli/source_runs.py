"""What the commands of followed and pulled logs do; ``app.cli.sources`` declares them."""

import logging
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import sqlalchemy as sa

from app.cli.base import EX_TEMPFAIL, check_organization, show
from app.cli.base import open_database as open_command_database
from app.config.settings import Settings
from app.dates import utc_now
from app.intake.formats import NATIVE
from app.intake.organizations import Organizations, load_organizations
from app.intake.sources.building import build
from app.intake.sources.entries import (
    EntryError,
    Follow,
    Prepared,
    Pull,
    Sources,
    load_sources,
    prepare,
)
from app.intake.sources.pages import PullError
from app.intake.sources.running import start
from app.storage.database import Database
from app.storage.tables import source_positions
from app.storage.types import database_now
from app.telemetry import logs

log = logging.getLogger("app.sources")

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
CONNECTIONS = 4


def follow(
    files: tuple[Path, ...], name: str | None, table: Path | None, options: dict[str, Any]
) -> None:
    """Follow files until a signal arrives."""
    check_organization(options["organization"])
    settings = Settings.from_environ()
    organizations = _organizations(table)
    prepared = [
        _prepared(
            Follow(name=str(path.absolute()), path=path.absolute(), format=name, **options),
            settings,
            organizations,
        )
        for path in dict.fromkeys(files)
    ]
    if organizations is not None and any(one.file_format.name in NATIVE for one in prepared):
        raise click.UsageError(
            "--organizations does not apply to events of this service, which name your"
            " organizations already; leave it out, or choose another --format"
        )
    _run(settings, prepared)


def pull(
    provider: str,
    name: str | None,
    table: Path | None,
    options: dict[str, Any],
    *,
    as_json: bool,
) -> None:
    """Pull what is new of one log, and show what the records were."""
    check_organization(options["organization"])
    settings = Settings.from_environ()
    if options["url"] is None and options["secret_file"] is None:
        prepared = _named(settings, provider)
    elif options["url"] is None or options["secret_file"] is None:
        raise click.UsageError("--url and --secret-file need each other")
    else:
        given = Pull(name=name or provider, provider=provider, **options)
        prepared = _prepared(given, settings, _organizations(table))
    entry = prepared.entry
    database = open_command_database(settings)
    logs.configure(settings, "stderr")  # stdout is for the result
    before = _totals(database, entry.name)
    # Each command is a pull, whenever the last one was.
    source = build(database, settings, replace(prepared, every=0), threading.Event(), utc_now)
    try:
        while source.turn():
            pass
    except PullError as error:
        source.fail(str(error))
        click.echo(f"Error: {entry.name}: {error}", err=True)
        sys.exit(EX_TEMPFAIL if error.is_temporary else 1)
    after = _totals(database, entry.name)
    done = {outcome: after[outcome] - before[outcome] for outcome in after}
    text = ", ".join(f"{count} {outcome}" for outcome, count in done.items())
    show(done, text, as_json=as_json)


def status(*, as_json: bool) -> None:
    """Show every source that was read, or that SOURCES_FILE names."""
    settings = Settings.from_environ()
    named = _from_settings(settings)
    database = open_command_database(settings)
    found = _positions(database)
    read = {one["source"] for one in found}
    found += [
        {"source": one.entry.name, "kind": _kind(one), "state": "not read yet"}
        for one in named.sources
        if one.entry.name not in read
    ]
    lines = [_line(one) for one in found] or ["no source has been read"]
    show({"sources": found}, "\n".join(lines), as_json=as_json)


def _kind(prepared: Prepared) -> str:
    entry = prepared.entry
    return entry.provider if isinstance(entry, Pull) else entry.kind


def _positions(database: Database) -> list[dict[str, Any]]:
    columns = [
        column for column in source_positions.c if column.name not in ("position", "version")
    ]
    now = database_now().label("now")
    query = sa.select(*columns, now).order_by(source_positions.c.source, source_positions.c.place)
    with database.reading() as connection:
        return [_shown(row._asdict()) for row in connection.execute(query)]


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    newest: datetime | None = row["newest_at"]
    lag = None if newest is None else max(0.0, (row["now"] - newest).total_seconds())
    return {
        "source": row["source"],
        "host": row["place"] or None,
        "kind": row["kind"],
        "state": "failed" if row["error"] else "read",
        "accepted": row["accepted"],
        "duplicates": row["duplicates"],
        "skipped": row["skipped"],
        "refused": row["refused"],
        "newestAt": newest,
        "lagSeconds": lag,
        "readAt": row["read_at"],
        "error": row["error"],
        "failedAt": row["failed_at"],
    }


def _line(one: Mapping[str, Any]) -> str:
    if "accepted" not in one:
        return f"{one['source']} ({one['kind']}): {one['state']}"
    where = f" on {one['host']}" if one["host"] else ""
    counts = ", ".join(
        f"{one[outcome]} {outcome}" for outcome in ("accepted", "duplicates", "skipped", "refused")
    )
    text = f"{one['source']} ({one['kind']}{where}): {counts}"
    if one["newestAt"] is not None:
        text += f"; newest event {one['newestAt']:%Y-%m-%d %H:%M:%S} UTC"
    if one["readAt"] is not None:
        text += f"; read {one['readAt']:%Y-%m-%d %H:%M:%S} UTC"
    if one["error"]:
        text += f"; FAILED {one['failedAt']:%Y-%m-%d %H:%M:%S} UTC: {one['error']}"
    return text


def _totals(database: Database, source: str) -> dict[str, int]:
    outcomes = ("accepted", "duplicates", "skipped", "refused")
    columns = [source_positions.c[outcome] for outcome in outcomes]
    with database.reading() as connection:
        row = connection.execute(
            sa.select(*columns).where(
                source_positions.c.source == source, source_positions.c.place == ""
            )
        ).one_or_none()
    return dict(zip(outcomes, row or (0, 0, 0, 0), strict=True))


def _from_settings(settings: Settings) -> Sources:
    path = settings.sources_file
    return Sources() if path is None else load_sources(path, settings)


def _named(settings: Settings, name: str) -> Prepared:
    """The pulled source with this name in SOURCES_FILE."""
    for one in _from_settings(settings).sources:
        if isinstance(one.entry, Pull) and one.entry.name == name:
            return one
    raise click.UsageError(
        f"SOURCES_FILE has no pulled source {name}; for a provider, give --url and --secret-file"
    )


def _organizations(table: Path | None) -> Organizations | None:
    return None if table is None else load_organizations(table)


def _prepared(
    entry: Follow | Pull, settings: Settings, organizations: Organizations | None
) -> Prepared:
    try:
        return prepare(entry, settings, organizations)
    except EntryError as error:
        is_argument = error.member in ("provider", "path")
        option = error.member.upper() if is_argument else f"--{error.member.replace('_', '-')}"
        raise click.UsageError(f"{option} {error.reason}") from None


def _run(settings: Settings, prepared: list[Prepared]) -> None:
    """Run sources until a signal arrives, then let the current transactions finish."""
    # Blocked before any thread starts, so that no other thread gets a signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    logs.configure(settings)
    database = Database(settings.database_url, pool_size=CONNECTIONS, overflow=0)
    stop = threading.Event()
    running = start(
        [(build(database, settings, one, stop, utc_now), one.every) for one in prepared], stop
    )
    for one in prepared:
        logs.write(log, logging.INFO, "following", source=one.entry.name)
    signal.sigwait(STOPPING)
    stop.set()
    for thread in running:
        thread.join()
    database.dispose()
