"""The configuration that gunicorn loads by default; see app/server/gunicorn_config.py."""

from app.server.gunicorn_config import *  # noqa: F403 - gunicorn reads the names that it knows
