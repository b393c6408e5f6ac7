"""The service's own address: from PUBLIC_URL, else from the headers of trusted proxies.

Links, redirects and cookies follow the scheme, the host and the path of the WSGI environment. The
functions here set them before the application reads them.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from app.config.parsing import PREFIX, PublicUrl
from app.config.settings import Settings

Environ = dict[str, Any]
Application = Callable[[Environ, Any], Iterable[bytes]]

_PORT = re.compile(r"[1-9][0-9]{0,4}")
_WITH_PORT = re.compile(r".*:[0-9]+")


def init_app(app: Flask, settings: Settings) -> None:
    """Set the address of each request.

    With PUBLIC_URL, proxies are trusted for the client's address alone.
    """
    hops, public = settings.trusted_proxies, settings.public_url
    inner: Any = app.wsgi_app
    if public is not None:
        inner = _at(inner, public)
    elif hops:
        inner = _forwarded(inner, hops)
    if hops:
        headers = 0 if public else hops
        inner = ProxyFix(inner, x_for=hops, x_proto=headers, x_host=headers)
    # Flask documents this assignment. mypy objects, because it replaces a method.
    app.wsgi_app = inner  # type: ignore[method-assign]


def _at(inner: Application, public: PublicUrl) -> Application:
    """The application at a public URL, whatever the request says about its own."""

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        environ["wsgi.url_scheme"] = public.scheme
        environ["HTTP_HOST"] = public.host
        _mount(environ, public.prefix)
        return inner(environ, start_response)

    return application


def _forwarded(inner: Application, hops: int) -> Application:
    """The application with ``X-Forwarded-Port`` and ``X-Forwarded-Prefix`` of trusted proxies.

    ProxyFix reads the other headers. It would replace a port that the host already has, although
    browsers name their port there. And it would accept any text as a prefix.
    """

    def application(environ: Environ, start_response: Any) -> Iterable[bytes]:
        port = _trusted(environ.get("HTTP_X_FORWARDED_PORT", ""), hops)
        host = environ.get("HTTP_HOST", "")
        if _PORT.fullmatch(port) and host and not _WITH_PORT.fullmatch(host):
            environ["HTTP_HOST"] = f"{host}:{port}"
        prefix = _trusted(environ.get("HTTP_X_FORWARDED_PREFIX", ""), hops).rstrip("/")
        if prefix and PREFIX.fullmatch(prefix):
            _mount(environ, prefix)
        return inner(environ, start_response)

    return application


def _trusted(header: str, hops: int) -> str:
    """The value that the outermost trusted proxy has appended; empty if there is none."""
    values = header.split(",")
    return values[-hops].strip() if len(values) >= hops else ""


def _mount(environ: Environ, prefix: str) -> None:
    """Set the path below which the service is; a proxy may have removed it from the request."""
    environ["SCRIPT_NAME"] = prefix
    path = environ.get("PATH_INFO", "")
    if prefix and (path == prefix or path.startswith(f"{prefix}/")):
        environ["PATH_INFO"] = path[len(prefix) :]
