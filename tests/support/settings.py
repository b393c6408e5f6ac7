"""Settings, variables and the clock of the services that the tests start."""

import os
from datetime import UTC, datetime

from app.config.settings import KEY_SOURCES, Settings

NOW = datetime(2026, 4, 15, 12, 30, tzinfo=UTC)
TENANT = "org-a"
EVENT_BYTES = 64 * 1024  # the default of MAX_EVENT_BYTES
KEY = "a key for the tests, longer than 32 bytes"
# The dates of most tests are fixed, and must not become too old for a table.
FOR_GOOD = {"HOURLY_RETENTION_DAYS": "0", "AGENT_DAILY_RETENTION_DAYS": "0"}


def make_settings(url: str, **variables: str) -> Settings:
    """The settings of a service on ``url``."""
    return Settings.from_environ(environment(url, **variables))


def environment(url: str, **variables: str) -> dict[str, str]:
    """The variables of a service on ``url``; another source of keys replaces the secret."""
    keys = {} if variables.keys() & set(KEY_SOURCES) else {"JWT_SECRET_KEY": KEY}
    return {"DATABASE_URL": url, "SECRET_KEY": KEY, **FOR_GOOD, **keys, **variables}


def child_environ(url: str, **variables: str) -> dict[str, str]:
    """The environment of a child process that serves ``url``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FLASK_")}
    return kept | {"PYTHONWARNINGS": "error"} | environment(url, **variables)
