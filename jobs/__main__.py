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
    interrupted="it had not started yet",
    exits={0: "stopped by SIGTERM or Ctrl-C, after the transaction that was under way"},
)
def main() -> None:
    """Count events every ROLLUP_INTERVAL_SECONDS, and purge every hour, until it is stopped.

    Several of these may run at once, on one host or more: one run happens per tick.
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
