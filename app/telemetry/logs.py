"""Logging: one line for each unit of work, on stdout.

A line has a short name and fields, as JSON for machines or as text for people. Fields of the
current work, such as a request's id, are added to each line that this work writes. An API key is
masked wherever it is in a line.
"""

import json
import logging
import logging.config
import re
import sys
from collections.abc import Mapping
from contextvars import ContextVar, Token
from datetime import UTC, datetime
from typing import Any

import msgspec

from app.config.settings import Settings

Fields = Mapping[str, Any]

_context: ContextVar[Fields] = ContextVar("log_context", default={})  # noqa: B039 - never changed
_PLAIN = re.compile(r"[!#-<>-~]+")
# The underscore may be percent-encoded, as in a URL, and the percent sign again.
_API_KEY = re.compile(r"(agk(?:_|%(?:25)*5[Ff]))[0-9A-Za-z]+")


def configure(settings: Settings, stream: str = "stdout") -> None:
    """Configure logging: all lines, also of libraries, go to stdout, or to stderr.

    ``LOG_LEVEL`` and ``LOG_FORMAT`` decide which lines, and their form.
    """
    as_text = settings.log_format == "text" or (
        settings.log_format == "auto" and getattr(sys, stream).isatty()
    )
    lines = {"level": settings.log_level, "handlers": ["stdout"], "propagate": False}
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"line": {"()": TextLines if as_text else JsonLines}},
            "handlers": {
                "stdout": {
                    "class": "logging.StreamHandler",
                    "stream": f"ext://sys.{stream}",
                    "formatter": "line",
                }
            },
            "root": {"level": settings.log_level, "handlers": ["stdout"]},
            "loggers": {
                "gunicorn.error": lines,
                "gunicorn.access": lines,
                # APScheduler warns of a skipped tick. This is normal while the previous tick waits
                # for a writer.
                "apscheduler": {"level": "ERROR"},
            },
        }
    )


def write(log: logging.Logger, level: int, name: str, **fields: Any) -> None:
    """Write one line; fields that are ``None`` are left out."""
    if log.isEnabledFor(level):
        log.log(level, name, extra={"fields": fields})


def bind(**fields: Any) -> Token[Fields]:
    """Add fields to every line from now on, until :func:`unbind`."""
    return _context.set({**_context.get(), **fields})


def unbind(token: Token[Fields]) -> None:
    """Remove the fields that one :func:`bind` added."""
    _context.reset(token)


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """A line's fields: its own, then those of the current work."""
    own: Fields = getattr(record, "fields", {})
    return {name: value for name, value in {**own, **_context.get()}.items() if value is not None}


class JsonLines(logging.Formatter):
    """JSON lines: ``{"time", "level", "logger", "message", …}``, and ``exception`` if any."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return masked(msgspec.json.encode(line, enc_hook=str).decode())
        except UnicodeEncodeError:  # a token may hold a lone surrogate, which UTF-8 cannot encode
            return masked(json.dumps(msgspec.to_builtins(line, enc_hook=str)))


class TextLines(logging.Formatter):
    """Text lines: ``time level message name=value …``.

    A value is quoted if a part of it could be read as another field.
    """

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC)
        values = [f"{name}={_quoted(value)}" for name, value in fields_of(record).items()]
        message = " ".join([record.getMessage(), *values])
        line = f"{time:%Y-%m-%d %H:%M:%S} {record.levelname.lower():8} {message}"
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return masked(line)


def masked(text: str) -> str:
    """The text without the API keys in it, whose beginning ``agk_`` stays."""
    return _API_KEY.sub(r"\1***", text)


def _quoted(value: Any) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
