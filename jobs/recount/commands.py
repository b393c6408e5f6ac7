"""``flask rollup verify``, ``rebuild`` and ``resume``: numbers compared with a recount."""

import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from functools import partial
from typing import Any, TypeVar

import click
import msgspec

from app.cli.base import (
    Command,
    check_order,
    coloured,
    json_option,
    open_database,
    progress,
    say,
    show,
    warn,
)
from app.config.settings import Settings
from app.dates import parse_month
from jobs.recount.rebuild import rebuild as rebuild_months
from jobs.recount.resume import resume as resume_counting
from jobs.recount.verify import Verification, verification

F = TypeVar("F", bound=Callable[..., Any])


def _month(_ctx: click.Context, _param: click.Parameter, value: str | None) -> date | None:
    """A month on the command line, as its first day."""
    try:
        return None if value is None else parse_month(value)
    except ValueError:
        raise click.BadParameter(
            f"must be a month from 1970-01 to 9999-12, not {value!r}"
        ) from None


def month_option(flag: str, name: str, text: str, *, required: bool = False) -> Callable[[F], F]:
    """A decorator that adds an option for a month."""
    return click.option(
        flag, name, metavar="YYYY-MM", callback=_month, required=required, help=text
    )


@click.command(
    cls=Command,
    examples=["flask rollup verify", "flask rollup verify --from 2026-01 --to 2026-03"],
    exits={1: "an error, or a number differs"},
)
@month_option("--from", "first", "The first month; by default all months.")
@month_option("--to", "last", "The last month.")
@json_option
def verify(first: date | None, last: date | None, as_json: bool) -> None:
    """Compare every summary table with a recount of the raw events.

    Ingest, runs and reads continue meanwhile. Months with purged raw events cannot be verified;
    they are listed.
    """
    check_order(first, last)
    settings = Settings.from_environ()
    with (
        progress() as on_progress,
        verification(
            open_database(settings),
            first,
            last,
            retention=settings.table_retention_days,
            on_table=partial(on_progress, "verifying"),
        ) as found,
    ):
        drifts = _verify_json(found) if as_json else _verify_text(found)
    sys.exit(1 if drifts else 0)


@click.command(
    cls=Command,
    examples=["flask rollup rebuild --from 2026-01 --to 2026-03"],
    interrupted="the months were corrected completely or not at all; run it again",
)
@month_option("--from", "first", "The first month.", required=True)
@month_option("--to", "last", "The last month.", required=True)
@click.option("--force", is_flag=True, help="Rebuild even if raw events are lost.")
@json_option
def rebuild(first: date, last: date, force: bool, as_json: bool) -> None:
    """Make months equal to a recount of their raw events, while the service runs.

    The correction journal keeps each change; `flask rollup status` shows it. Months with purged
    raw events are refused. So are months with fewer raw events than every summary table counts,
    because raw events are lost there.
    """
    check_order(first, last)
    settings = Settings.from_environ()
    with progress() as on_progress:
        done = rebuild_months(
            open_database(settings),
            first,
            last,
            force=force,
            retention=settings.table_retention_days,
            on_step=partial(on_progress, "rebuilding"),
        )
    show(asdict(done), _corrected(done.buckets, done.correction), as_json=as_json)


@click.command(
    cls=Command,
    examples=["flask rollup resume", "flask rollup resume --json"],
    interrupted="counting is still refused; run it again",
    exits={1: "an error, an open writer, or numbers that cannot be proven: still refused"},
)
@click.option(
    "--accept-loss",
    is_flag=True,
    help="Where an organization's counted events are missing, keep the numbers of that month.",
)
@json_option
def resume(accept_loss: bool, as_json: bool) -> None:
    """End a refusal to count, after a recount of all events.

    It moves a sequence that was left behind, counts the events that were never counted, and
    verifies the rest. Events are stored and read meanwhile. Run it as the owner of the tables.
    """
    settings = Settings.from_environ()
    with progress() as on_progress:
        done = resume_counting(
            open_database(settings),
            accept_loss=accept_loss,
            retention=settings.table_retention_days,
            on_step=partial(on_progress, "recounting"),
        )
    ended = "counting was not refused" if done.refusal is None else "counting goes on"
    text = f"{ended}: {_corrected(done.buckets, done.correction)}"
    show(asdict(done), text, as_json=as_json)
    if done.lost is not None:
        warn(f"{done.lost}; these numbers stay as they are, and their months count as purged")
    if done.uncounted:
        warn(f"at least {done.uncounted} events of such months or of purged ones stay uncounted")


def _corrected(buckets: int, correction: int | None) -> str:
    number = "" if correction is None else f", correction {correction}"
    return f"{buckets} buckets corrected{number}"


def _verify_text(found: Verification) -> int:
    drifts = 0
    for drift in found.drift:
        drifts += 1
        key = " ".join(f"{name}={value}" for name, value in drift.key.items())
        text = f"{drift.table} {key}: stored {drift.stored}, recounted {drift.recounted}"
        if drift.stored_hours != drift.recounted_hours:
            text += f"; hours stored {drift.stored_hours}, recounted {drift.recounted_hours}"
        say(coloured(text, "red"))
    for month in found.scope.purged:
        say(f"{month:%Y-%m} cannot be verified: raw events were purged")
    for tenant_id in found.scope.deleting:
        say(f"{tenant_id} is not verified: finish `flask organizations delete` first")
    say(f"{drifts} buckets differ, events up to {found.watermark}")
    return drifts


def _verify_json(found: Verification) -> int:
    drift = [
        {name: value for name, value in asdict(one).items() if value is not None}
        for one in found.drift
    ]
    purged = [f"{month:%Y-%m}" for month in found.scope.purged]
    result: dict[str, Any] = {"watermark": found.watermark, "not_verifiable": purged}
    if found.scope.deleting:
        result["being_deleted"] = found.scope.deleting
    result["drift"] = drift
    click.echo(msgspec.json.encode(result).decode())
    return len(drift)
