"""``python -m jobs``: the scheduler process."""

import sys

import click

from app.cli.base import Command
from app.config.settings import Settings
from app.errors import SettingsError
from app.storage.schema import refuse_other_schema
from app.telemetry import logs
from jobs.scheduler import run_scheduler


@click.command(
    cls=Command,
    examples=["python -m jobs", "ROLLUP_INTERVAL_SECONDS=60 python -m jobs"],
    interrupted="the scheduler had not started yet",
    exits={0: "stopped by SIGTERM or Ctrl-C, after the current transaction"},
)
def main() -> None:
    """Count events every ROLLUP_INTERVAL_SECONDS and purge every hour, until it is stopped.

    Several schedulers may run at once, on one or more hosts: there is one run per tick.
    """
    try:
        settings = Settings.from_environ()
        refuse_other_schema(settings)
        logs.configure(settings)
        run_scheduler(settings)
    except SettingsError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
