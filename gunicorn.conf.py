"""gunicorn's settings, in the file that it looks for; they are app/server/gunicorn_config.py's."""

from app.server.gunicorn_config import *  # noqa: F403 - gunicorn takes what it knows of all names here
