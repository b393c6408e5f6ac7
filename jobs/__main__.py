"""``python -m jobs``: the scheduler process."""

import sys

from app import logs
from app.config import Settings
from app.errors import SettingsError
from app.schema import refuse_other_schema
from jobs.scheduler import serve


def main() -> None:
    try:
        settings = Settings.from_environ()
        refuse_other_schema(settings)
        logs.configure(settings)
        serve(settings)
    except SettingsError as error:
        sys.exit(f"error: {error}")


main()
