"""``python -m jobs``: the scheduler process."""

import logging
import sys

from app.config import Settings
from app.errors import SettingsError
from app.schema import refuse_other_schema
from jobs.scheduler import serve


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # A tick skipped because the last one still waits for a writer is as designed.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
    try:
        settings = Settings.from_environ()
        refuse_other_schema(settings)
    except SettingsError as error:
        sys.exit(f"error: {error}")
    serve(settings)


main()
