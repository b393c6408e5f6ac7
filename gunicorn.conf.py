"""The file that gunicorn looks for; app/server/gunicorn_config.py has the settings."""

from app.server.gunicorn_config import *  # noqa: F403 - gunicorn reads the names that it knows
