"""Pages of a provider's log: requests with credentials, limits, retries and rate limits."""

import random
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from urllib.request import Request

from app.dates import utc_now
from app.intake.sources.credentials import Credentials, TokenError
from app.intake.sources.log_apis import LogApi
from app.provider_http import CERTIFICATE, TOO_LARGE, Answer, FetchError, fetch

# One request, its response, and the attempts for one page.
REQUEST_SECONDS = 30.0
RESPONSE_BYTES = 32 * 1024 * 1024
ATTEMPTS = 5
BACKOFF_SECONDS = (0.5, 30.0)
# A longer wait ends the pull; the next one begins after it.
WAIT_SECONDS = 60.0
# A provider's wait is at least and at most so long.
MIN_WAIT_SECONDS = 1.0
MAX_WAIT_SECONDS = 3600.0
# Failures that another attempt would repeat.
_FINAL = (TOO_LARGE, CERTIFICATE)
# The names of headers with the rest of a rate limit, and when it begins anew.
_REMAINING = ("X-RateLimit-Remaining", "X-Rate-Limit-Remaining", "RateLimit-Remaining")
_RESET = ("X-RateLimit-Reset", "X-Rate-Limit-Reset", "RateLimit-Reset")
# Such a number is an instant, and a smaller one a number of seconds.
_INSTANT = 1_000_000_000


class PullError(Exception):
    """A pull that cannot go on. Its text is for the log: no URL, no secret, no text of the server.

    Attributes:
        wait: how many seconds to wait before the next request.
        is_temporary: whether the same pull may succeed later.
    """

    def __init__(self, reason: str, wait: float = 0, *, is_temporary: bool = False) -> None:
        super().__init__(reason)
        self.wait = wait
        self.is_temporary = is_temporary or wait > 0


class GoneError(PullError):
    """The provider refuses a token of a page, for example since it is too old."""


@dataclass
class PageReader:
    """Requests the pages of one log.

    Args:
        wait: waits so many seconds; true if the process is to stop.
    """

    api: LogApi
    credentials: Credentials
    certificates: ssl.SSLContext
    wait: Callable[[float], bool]
    monotonic: Callable[[], float] = time.monotonic
    pause: float = 0

    def read(self, token: str, until: float) -> Answer:
        """The response with a page; tries again what may succeed later.

        Args:
            until: when the pull ends (monotonic).

        Raises:
            PullError: there is no page, and the reason.
        """
        pause, self.pause = self.pause, 0
        if pause:
            self._wait(pause, until, "the rate limit is used up")
        may_renew = True
        for attempt in range(1, ATTEMPTS + 1):
            try:
                answer = self._send(token)
            except FetchError as error:
                if error.outcome in _FINAL or attempt == ATTEMPTS:
                    is_temporary = error.outcome not in _FINAL
                    raise PullError(str(error), is_temporary=is_temporary) from None
                self._wait(_backoff(attempt), until, str(error))
                continue
            except TokenError as error:
                raise PullError(str(error)) from None
            if answer.status == HTTPStatus.OK:
                self.pause = _pause(answer.headers)
                return answer
            if answer.status == HTTPStatus.UNAUTHORIZED and may_renew:
                self.credentials.forget()  # it has expired, or was revoked
                may_renew = False
            else:
                self._wait(_wait_after(answer, attempt), until, f"status {answer.status}")
        raise PullError("status 401")

    def _send(self, token: str) -> Answer:
        url, body = self.api.request(token)
        request = Request(url, body, method="GET" if body is None else "POST")  # noqa: S310 - checked to be http(s)
        request.add_header("Accept", "application/json")
        if body is not None:
            request.add_header("Content-Type", "application/json")
        request.add_header("Authorization", self.credentials.header())
        return fetch(request, self.certificates, REQUEST_SECONDS, RESPONSE_BYTES)

    def _wait(self, seconds: float, until: float, reason: str) -> None:
        if seconds > min(WAIT_SECONDS, until - self.monotonic()):
            raise PullError(f"{reason}; the next pull begins in {seconds:.0f} s", seconds)
        if self.wait(seconds):
            raise PullError("stopped", is_temporary=True)


def token_fetcher(certificates: ssl.SSLContext) -> Callable[[Request], Answer]:
    """Sends a request for a token."""
    return lambda request: fetch(request, certificates, REQUEST_SECONDS)


def _wait_after(answer: Answer, attempt: int) -> float:
    """The seconds to wait before the next attempt.

    Raises:
        PullError: the status is final, or this was the last attempt.
    """
    status, reason = answer.status, f"status {answer.status}"
    if status in (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        raise GoneError(reason)
    if status not in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS) and status < 500:
        raise PullError(reason)
    asked = _asked_wait(answer.headers)
    if attempt == ATTEMPTS:
        raise PullError(reason, asked or 0, is_temporary=True)
    return asked or _backoff(attempt)


def _backoff(attempt: int) -> float:
    low, high = BACKOFF_SECONDS
    seconds: float = min(high, low * 2**attempt)
    return seconds * random.uniform(0.5, 1)  # noqa: S311 - jitter, not a secret


def _asked_wait(headers: Mapping[str, str]) -> float | None:
    """The seconds that a response asks to wait: by ``Retry-After``, or by its rate limit."""
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return _limited(float(text[:12]))
    if text:
        try:
            seconds = (parsedate_to_datetime(text) - utc_now()).total_seconds()
            return _limited(seconds)
        except (ValueError, TypeError, OverflowError):
            pass
    return _reset(headers)


def _pause(headers: Mapping[str, str]) -> float:
    """The seconds to wait before the next request, if the rate limit allows none now."""
    if any(headers.get(name, "").strip() == "0" for name in _REMAINING):
        return _reset(headers) or 0
    return 0


def _reset(headers: Mapping[str, str]) -> float | None:
    for name in _RESET:
        text = headers.get(name, "").strip()
        if text.isascii() and text.isdigit():
            seconds = float(text[:12])
            return _limited(seconds - time.time() if seconds >= _INSTANT else seconds)
    return None


def _limited(seconds: float) -> float:
    # A reset that is a little in the past by this clock is still waited for.
    return min(max(seconds, MIN_WAIT_SECONDS), MAX_WAIT_SECONDS)
