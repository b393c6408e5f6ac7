"""gunicorn's settings, from the same environment as the service's."""

import sys

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
