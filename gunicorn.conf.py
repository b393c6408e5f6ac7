"""gunicorn's settings, in the file that it looks for; they are app/serving.py's."""

from app.serving import *  # noqa: F403 - gunicorn takes what it knows of all names here
