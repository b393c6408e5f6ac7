"""gunicorn's settings, from the same environment as the service's."""

import sys
from typing import Any

from gunicorn.glogging import Logger

from app.config import Settings
from app.errors import SettingsError
from app.schema import refuse_other_schema_once

try:
    settings = Settings.from_environ()
    refuse_other_schema_once(settings)
except SettingsError as error:
    sys.exit(f"error: {error}")

bind = settings.address
worker_class = "gthread"
workers = 2
threads = 4
timeout = 60
graceful_timeout = 30
# Longer than the 60 s for which proxies and clients usually keep a connection that is idle.
# Whoever closes first may do so just as a request comes in, and a POST that is lost like that is
# not sent again by itself; by default gunicorn closes after 2 s.
keepalive = 75
control_socket_disable = True


class Log(Logger):
    """gunicorn's log, without the words of a request that it could not read or handle: there
    may be a token in them."""

    def warning(self, msg: str, *args: object, **kwargs: object) -> None:
        if msg.startswith("Invalid request from "):
            msg = msg.partition(": ")[0]
        super().warning(msg, *args, **kwargs)

    def exception(self, msg: str, *args: object, **kwargs: object) -> None:
        if msg.startswith("Error handling request"):
            msg, args = "Error handling a request", ()
        super().exception(msg, *args, **kwargs)


logger_class = Log
# X-Forwarded-* is the application's to judge (TRUSTED_PROXIES); by itself gunicorn would take
# the scheme from anybody on this host.
forwarded_allow_ips = ""
secure_scheme_headers = {}
forwarder_headers = ""


def worker_exit(server: Any, worker: Any) -> None:
    """Close the worker's database connections, rather than drop them."""
    if app := getattr(worker, "wsgi", None):  # absent when the application failed to load
        app.extensions["analytics"].database.dispose()
