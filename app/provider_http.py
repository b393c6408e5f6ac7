"""HTTP requests to the identity provider, for its key set, for sign-in and for its log.

This module decides which certificates are trusted, how long a request may take and how much of a
response is read. It never follows a redirect.
"""

import errno
import http.client
import socket
import ssl
import threading
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.error import URLError
from urllib.request import Request

from app import __version__
from app.config.settings import Settings
from app.errors import SettingsError

USER_AGENT = f"agentidp-analytics/{__version__}"
MAX_RESPONSE_BYTES = 1024 * 1024

# Every way in which a fetch ends, for the log and as a label of metrics.
FETCHED = "fetched"
STATUS = "status"
CERTIFICATE = "certificate"
TLS = "TLS"
NAME = "name not resolved"
REFUSED = "connection refused"
TIMEOUT = "timeout"
CONNECTION = "connection"
TOO_LARGE = "too large"
NOT_HTTP = "not HTTP"
NOT_JSON = "not JSON"
NOT_A_KEY_SET = "not a key set"
NO_USABLE_KEY = "no usable key"
OUTCOMES = (
    *(FETCHED, STATUS, CERTIFICATE, TLS, NAME, REFUSED, TIMEOUT, CONNECTION),
    *(TOO_LARGE, NOT_HTTP, NOT_JSON, NOT_A_KEY_SET, NO_USABLE_KEY),
)
ENDED_EARLY = "ended early"

# Every error that a broken, slow or wrong server can cause, the special ones first.
_OUTCOMES: tuple[tuple[type[Exception], str], ...] = (
    (TimeoutError, TIMEOUT),
    (ssl.SSLCertVerificationError, CERTIFICATE),
    (ssl.SSLError, TLS),
    (socket.gaierror, NAME),
    (UnicodeError, NAME),
    (ConnectionRefusedError, REFUSED),
    (OSError, CONNECTION),
    (http.client.IncompleteRead, CONNECTION),
    (http.client.HTTPException, NOT_HTTP),
    (ValueError, NOT_HTTP),
)
_ERRORS = tuple(kind for kind, _ in _OUTCOMES)


class FetchError(Exception):
    """A request to the provider that failed: an outcome, and a detail without text of the server.

    The error's text is for the log. It never repeats the URL, which may hold a secret.
    """

    def __init__(self, outcome: str, detail: object = "") -> None:
        super().__init__(f"{outcome} {detail}".strip())
        self.outcome = outcome


@dataclass(frozen=True)
class Answer:
    """A complete response, whatever its status."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def trusted_certificates(settings: Settings) -> ssl.SSLContext:
    """The system's certificate authorities, with those of the two files that settings may name.

    Raises:
        SettingsError: a file is unreadable or has no certificate.
    """
    context = ssl.create_default_context()
    for variable, file in (
        ("SSL_CERT_FILE", settings.ssl_cert_file),
        ("REQUESTS_CA_BUNDLE", settings.requests_ca_bundle),
    ):
        if file is None:
            continue
        try:
            if file.is_dir():
                context.load_verify_locations(capath=file)
            else:
                context.load_verify_locations(cafile=file)
        except ssl.SSLError:
            raise SettingsError(variable, "must name a PEM file of certificates") from None
        except OSError as error:
            raise SettingsError(variable, f"cannot be read: {error.strerror}") from None
    return context


def fetch(
    request: Request,
    certificates: ssl.SSLContext,
    seconds: float,
    max_bytes: int = MAX_RESPONSE_BYTES,
) -> Answer:
    """The response to a request that takes ``seconds`` at most.

    Like other programs, it uses the proxy that ``HTTPS_PROXY`` or ``HTTP_PROXY`` names.

    Raises:
        FetchError: there is no response, or it is larger than ``max_bytes``.
    """
    request.add_header("User-Agent", USER_AGENT)
    # The response is read as it is, so it must not be compressed.
    request.add_header("Accept-Encoding", "identity")
    with _Deadline(seconds) as deadline:
        # This opener has no handler of redirects, so it returns a redirect as any other response.
        opener = urllib.request.OpenerDirector()
        opener.add_handler(urllib.request.ProxyHandler())
        opener.add_handler(_Handler(certificates, deadline))
        try:
            with opener.open(request, timeout=seconds) as response:
                content = response.read(max_bytes + 1)
        except _ERRORS as error:
            raise _failure(error, is_late=deadline.is_over) from None
        if deadline.is_over:  # the shutdown looks like the end of the response
            raise FetchError(TIMEOUT)
    if len(content) > max_bytes:
        raise FetchError(TOO_LARGE)
    if response.length:
        raise FetchError(CONNECTION, ENDED_EARLY)
    return Answer(response.status, response.headers, content)


class _Deadline:
    """Shuts a connection down when its time is over.

    A socket's own timeout starts again with each byte. A slow server could therefore hold a thread
    for days.
    """

    def __init__(self, seconds: float) -> None:
        self.is_over = False
        self._socket: socket.socket | None = None
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self) -> "_Deadline":
        self._timer.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._timer.cancel()
        with self._lock:
            if self._socket is not None:
                self._socket.close()
                self._socket = None

    def watch(self, connected: socket.socket) -> None:
        """Shut this connection down at the end of the time."""
        with self._lock:
            if self.is_over:
                raise TimeoutError
            # A duplicate, because TLS replaces the connection's socket object.
            self._socket = self._socket or connected.dup()

    def _end(self) -> None:
        with self._lock:
            self.is_over = True
            if self._socket is not None:
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)


class _Connection(http.client.HTTPConnection):
    """A connection that its deadline watches."""

    deadline: _Deadline
    _connected: Any = None

    @property
    def sock(self) -> Any:
        """The socket. It is watched from the first moment on, before the exchange with a proxy."""
        return self._connected

    @sock.setter
    def sock(self, connected: Any) -> None:
        self._connected = connected
        if connected is not None:
            self.deadline.watch(connected)


class _TLSConnection(http.client.HTTPSConnection, _Connection):
    """The same with TLS: it connects by the other class, then begins the handshake."""


class _Handler(urllib.request.AbstractHTTPHandler):
    """Opens URLs over watched connections, for urllib."""

    def __init__(self, certificates: ssl.SSLContext, deadline: _Deadline) -> None:
        super().__init__()
        self._certificates = certificates
        self._deadline = deadline

    def http_open(self, request: Request) -> http.client.HTTPResponse:
        return self.do_open(self._watched(_Connection), request)

    def https_open(self, request: Request) -> http.client.HTTPResponse:
        connection = self._watched(_TLSConnection)
        return self.do_open(connection, request, context=self._certificates)

    http_request = https_request = urllib.request.AbstractHTTPHandler.do_request_

    def _watched(self, kind: type[_Connection]) -> Callable[..., Any]:
        def make(host: str, **options: Any) -> _Connection:
            connection = kind(host, **options)
            connection.deadline = self._deadline
            return connection

        return make


def _failure(error: Exception, *, is_late: bool) -> FetchError:
    """The failure that an error of the libraries means; their texts may repeat the server's."""
    if isinstance(error, URLError) and isinstance(error.reason, Exception):
        error = error.reason
    if is_late:
        return FetchError(TIMEOUT)
    outcome = next(outcome for kind, outcome in _OUTCOMES if isinstance(error, kind))
    if isinstance(error, ssl.SSLCertVerificationError):
        # OpenSSL's words, as "self-signed certificate". After a comma it repeats the host.
        return FetchError(outcome, f"({error.verify_message.partition(',')[0]})")
    if isinstance(error, http.client.IncompleteRead):
        return FetchError(outcome, ENDED_EARLY)
    if outcome == CONNECTION and isinstance(error, OSError):
        return FetchError(outcome, errno.errorcode.get(error.errno or 0, ""))
    return FetchError(outcome)
