"""gunicorn's settings, from the same environment as the service's."""

import sys
from typing import Any

from app.config import Settings
from app.errors import SettingsError

try:
    settings = Settings.from_environ()
except SettingsError as error:
    sys.exit(f"error: {error}")

bind = settings.address
worker_class = "gthread"
workers = 2
threads = 4
timeout = 60
graceful_timeout = 30
control_socket_disable = True


def worker_exit(server: Any, worker: Any) -> None:
    """Close the worker's database connections, rather than drop them."""
    if app := getattr(worker, "wsgi", None):  # absent when the application failed to load
        app.extensions["analytics"].database.dispose()
