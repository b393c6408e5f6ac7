"""Checks of the address to listen on, so that an error names the setting."""

import errno
import socket

from app.config.settings import Settings
from app.errors import SettingsError


def check_host(settings: Settings) -> None:
    """Refuse a HOST that is no address of this machine.

    Raises:
        SettingsError: HOST cannot be resolved or bound.
    """
    try:
        _bind(settings, 0)
    except socket.gaierror as error:
        raise SettingsError(
            "HOST", f"cannot be resolved ({error.strerror}); write an address of this machine"
        ) from None
    except OSError as error:
        raise SettingsError(
            "HOST", f"cannot be bound ({error.strerror}); write an address of this machine"
        ) from None


def check_port(settings: Settings) -> None:
    """Refuse a HOST as :func:`check_host`, and a PORT that another program listens on.

    Raises:
        SettingsError: HOST or PORT cannot be bound.
    """
    check_host(settings)
    try:
        _bind(settings, settings.port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            problem = f"{settings.port} is taken: stop the other program, or set another PORT"
        else:
            problem = f"{settings.port} cannot be bound ({error.strerror}); set another PORT"
        raise SettingsError("PORT", problem) from None


def _bind(settings: Settings, port: int) -> None:
    host = settings.bare_host
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        # As the server does: an address whose last connections are still closing is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
