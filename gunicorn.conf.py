"""gunicorn's settings, from the same environment as the service's."""

import sys
from typing import Any

from app.config import Settings
from app.errors import SettingsError
from app.schema import refuse_other_schema

try:
    settings = Settings.from_environ()
    refuse_other_schema(settings)
except SettingsError as error:
    sys.exit(f"error: {error}")

bind = settings.address
worker_class = "gthread"
workers = 2
threads = 4
timeout = 60
graceful_timeout = 30
control_socket_disable = True
# X-Forwarded-* is the application's to judge (TRUSTED_PROXIES); by itself gunicorn would take
# the scheme from anybody on this host.
forwarded_allow_ips = ""
secure_scheme_headers = {}
forwarder_headers = ""


def worker_exit(server: Any, worker: Any) -> None:
    """Close the worker's database connections, rather than drop them."""
    if app := getattr(worker, "wsgi", None):  # absent when the application failed to load
        app.extensions["analytics"].database.dispose()
