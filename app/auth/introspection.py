"""Introspection: the identity provider says what an opaque access token is (RFC 7662).

An answer is remembered for less than a minute, and never past the token's expiry. So a revoked
token works for a minute at most. Many simultaneous uses of one token share one request.

**A slow or unavailable provider stops no other caller.** A request to it is short. Only so many web
requests wait for it at once, and they leave their places to others meanwhile. After a few failures
no request waits for a while: each is refused at once, and one of them tries again now and then.
"""

import base64
import json
import logging
import math
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from http import HTTPStatus
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import quote_plus, urlencode
from urllib.request import Request

from app.auth.allowances import Allowances
from app.auth.token_cache import TokenCache
from app.config.parsing import Introspection
from app.errors import ForbiddenError, UnauthorizedError, UnavailableError
from app.provider_http import NOT_JSON, STATUS, FetchError, fetch
from app.telemetry import logs, metrics
from app.waits import place_left

REQUEST_SECONDS = 3.0
# An answer has a few claims. An organization's own may be long.
MAX_BYTES = 64 * 1024
# Below a minute by the time that a request may take, and its wait for a place afterwards.
ANSWER_SECONDS = 50.0
# A refused token may become valid, as one that was used before the provider had stored it.
REFUSED_SECONDS = 10.0
# After so many failures in a row, the provider is asked once within this time.
MAX_FAILURES, PAUSE_SECONDS = 3, 5.0
# With as many requests as may wait for the provider, a further one waits for this time. If that was
# in vain, no other one waits within the second time.
CROWDED_SECONDS, CROWDED_PAUSE_SECONDS = 0.25, 1.0

_INVALID = "the token is invalid; use a new access token"
_UNAVAILABLE = "the identity provider could not say what the token is; try again in a few seconds"
log = logging.getLogger("app")


class Expiring(Protocol):
    """The value of a token; ``expires`` is in Unix seconds."""

    @property
    def expires(self) -> float: ...


T = TypeVar("T", bound=Expiring)


class _Flight:
    """One request to the provider, for every use of one token meanwhile."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.error: UnavailableError | None = None


class Introspector(Generic[T]):
    """Asks one provider about tokens, and remembers the answers for a short time.

    Args:
        slots: how many requests may wait for the provider at once.
        read: reads the value of a token from the answer about it. It raises ``UnauthorizedError``
            or ``ForbiddenError`` to refuse the token.
    """

    def __init__(
        self,
        endpoint: Introspection,
        certificates: ssl.SSLContext,
        slots: int,
        read: Callable[[Mapping[str, Any]], T],
    ) -> None:
        self._endpoint = endpoint
        self._certificates = certificates
        self._read = read
        self._accepted = TokenCache[T](ANSWER_SECONDS)
        # The class, the message and the cause of each refusal.
        self._refused = TokenCache[
            tuple[type[UnauthorizedError | ForbiddenError], str, str | None]
        ](REFUSED_SECONDS)
        self._clients = Allowances("unknown tokens")
        self._flights: dict[bytes, _Flight] = {}
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(slots)
        self._crowded_until = float("-inf")
        self._breaker = _Breaker()

    def verify(self, token: str, client: str) -> T:
        """The value of an active token.

        Args:
            client: the address that the request came from.

        Raises:
            UnauthorizedError: the token is not active, or not for this service.
            ForbiddenError: its organization claim is invalid.
            RateLimitError: the client has sent too many tokens that were refused.
            UnavailableError: the provider does not answer, or too many requests wait for it.
        """
        if (value := self._known(token)) is not None:
            return value
        if not self._accepted.has_had(token):
            self._clients.check(client)
        with self._slot(), place_left():
            self._ask_once(token, client)
        value = self._known(token)
        if value is None:  # it expired at this moment, or many others came after it
            raise UnauthorizedError("the token has expired; use a new one", cause="claim exp")
        return value

    def _known(self, token: str) -> T | None:
        """The value of a token that the provider was asked about a moment ago."""
        if (value := self._accepted.get(token)) is not None:
            return value
        if (refusal := self._refused.get(token)) is not None:
            kind, message, cause = refusal
            raise kind(message, cause=cause)
        return None

    def _ask_once(self, token: str, client: str) -> None:
        """Ask the provider, or wait for the request that already does."""
        key = sha256(token.encode()).digest()
        with self._lock:
            if self._accepted.get(token) is not None or self._refused.get(token) is not None:
                return
            flight = self._flights.get(key)
            is_first = flight is None
            if flight is None:
                flight = self._flights[key] = _Flight()
        if not is_first:
            # The request ends in its time. The second is for a busy host.
            if not flight.done.wait(REQUEST_SECONDS + 1):
                raise UnavailableError(_UNAVAILABLE, cause="introspection: timeout")
            if flight.error is not None:
                raise UnavailableError(flight.error.message, cause=flight.error.cause)
            return
        try:
            self._decide(token, client)
        except UnavailableError as error:
            flight.error = error
            raise
        except BaseException:
            flight.error = UnavailableError(_UNAVAILABLE, cause="introspection: error")
            raise
        finally:
            with self._lock:
                del self._flights[key]
            flight.done.set()

    def _decide(self, token: str, client: str) -> None:
        """Ask the provider, and remember whether the token is accepted."""
        self._breaker.check()
        try:
            answer = self._answer(token)
        except FetchError as error:
            self._breaker.fail(str(error))
            metrics.count_introspection(error.outcome)
            logs.write(log, logging.WARNING, "introspection failed", cause=str(error))
            raise UnavailableError(_UNAVAILABLE, cause=f"introspection: {error}") from None
        self._breaker.succeed()
        is_active = answer.get("active") is True
        metrics.count_introspection("active" if is_active else "inactive")
        try:
            if not is_active:
                raise UnauthorizedError(_INVALID, cause="inactive token")
            value = self._read(answer)
        except (UnauthorizedError, ForbiddenError) as error:
            self._clients.use(client)
            self._refused.put(token, (type(error), error.message, error.cause), math.inf)
        else:
            self._accepted.put(token, value, value.expires)

    def _answer(self, token: str) -> Mapping[str, Any]:
        form = [("token", token), ("token_type_hint", "access_token")]
        headers = {
            "Accept": "application/json",
            "Authorization": basic(self._endpoint.client_id, self._endpoint.client_secret),
            "Content-Type": "application/x-www-form-urlencoded",
        }
        request = Request(self._endpoint.url, urlencode(form).encode(), headers)  # noqa: S310 - http(s)
        answer = fetch(request, self._certificates, REQUEST_SECONDS, MAX_BYTES)
        if answer.status != HTTPStatus.OK:
            raise FetchError(STATUS, answer.status)
        try:
            found = json.loads(answer.body)
        except (ValueError, RecursionError):
            raise FetchError(NOT_JSON) from None
        if not isinstance(found, dict):
            raise FetchError(NOT_JSON, "object")
        return found

    @contextmanager
    def _slot(self) -> Iterator[None]:
        """Take one of the slots of requests that wait for the provider.

        Raises:
            UnavailableError: all are taken.
        """
        if not self._slots.acquire(blocking=False):
            crowded = time.monotonic() < self._crowded_until
            if crowded or not self._slots.acquire(timeout=CROWDED_SECONDS):
                self._crowded_until = time.monotonic() + CROWDED_PAUSE_SECONDS
                raise UnavailableError(_UNAVAILABLE, cause="introspection: busy")
        try:
            yield
        finally:
            self._slots.release()


class _Breaker:
    """Refuses requests to a provider that has failed several times in a row."""

    def __init__(self) -> None:
        self._failures = 0
        self._closed_until = float("-inf")
        self._cause = ""
        self._lock = threading.Lock()

    def check(self) -> None:
        """Refuse a request, unless it is the one that tries again.

        Raises:
            UnavailableError: the provider has failed a moment ago.
        """
        with self._lock:
            if self._failures < MAX_FAILURES:
                return
            now = time.monotonic()
            if now < self._closed_until:
                raise UnavailableError(_UNAVAILABLE, cause=f"introspection: {self._cause}")
            self._closed_until = now + PAUSE_SECONDS

    def fail(self, cause: str) -> None:
        with self._lock:
            self._failures += 1
            self._cause = cause
            self._closed_until = time.monotonic() + PAUSE_SECONDS

    def succeed(self) -> None:
        with self._lock:
            self._failures = 0


def basic(client_id: str, client_secret: str) -> str:
    """The header ``Authorization`` of a client; both parts are form-encoded (RFC 6749, 2.3.1)."""
    pair = f"{quote_plus(client_id)}:{quote_plus(client_secret)}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"
