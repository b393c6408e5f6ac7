"""``python -m jobs``: the scheduler process."""

import logging
import sys

import click

from app.cli import Command
from app.config import Settings
from app.errors import SettingsError
from app.schema import refuse_other_schema
from jobs.scheduler import serve


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
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # A tick skipped because the last one still waits for a writer is as designed.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
    try:
        settings = Settings.from_environ()
        refuse_other_schema(settings)
    except SettingsError as error:
        sys.exit(f"error: {error}")
    serve(settings)


if __name__ == "__main__":
    main()
