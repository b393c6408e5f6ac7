"""Delivery of one batch: an HTTP request to ``POST /api/v1/events``, and its answer."""

import codecs
import gzip
import http.client
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit

ACCEPTED = 202
MAX_ANSWER_BYTES = 1024 * 1024
MAX_RETRY_AFTER_SECONDS = 3600.0
# These say that the service or the way to it is at fault, or the key. No event is.
_NEVER_ONE_EVENT = frozenset({401, 407, 408, 425, 429})
_PRINTABLE = re.compile(r"[\x21-\x7e]+")

# The first connection would import this codec. A child that is forked during an import waits for
# its lock for good.
codecs.lookup("idna")

Key = str | Callable[[], str]


class Answer(NamedTuple):
    """The answer to a request.

    Attributes:
        status: the HTTP status; 0 if there was no answer.
        body: the JSON object in it, or an empty one.
        retry_after: the seconds that the service wants to be left alone for.
        problem: why nothing was accepted, for the log; never has a key.
    """

    status: int
    body: dict[str, Any]
    retry_after: float
    problem: str

    @property
    def accepted(self) -> bool:
        return not self.problem

    @property
    def may_blame_an_event(self) -> bool:
        """Whether the request itself was refused, so that one of its events may be the reason."""
        return 400 <= self.status < 500 and self.status not in _NEVER_ONE_EVENT


class Service:
    """The service at a base URL, and the key for it.

    Raises:
        ValueError: the URL or the key cannot be used.
    """

    def __init__(self, url: str, key: Key) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("the url must be as https://analytics.example.com")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("the url must have no user, query or fragment")
        self._url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}/api/v1/events"
        self._key = key
        if isinstance(key, str):
            _checked(key)
        self._opener = urllib.request.build_opener(_Http, _Https, _AsTheyCome)

    def post(self, lines: Sequence[bytes], timeout: float) -> Answer:
        """Send one event a line. An invalid event does not keep the service from the others."""
        body = gzip.compress(b"\n".join(lines), compresslevel=6, mtime=0)
        headers = {"Content-Type": "application/x-ndjson", "Content-Encoding": "gzip"}
        return self._post("?invalid=skip", body, headers, timeout)

    def accepts_batches(self, timeout: float) -> bool:
        """Whether the service accepts an empty batch: then URL, key and compression are right."""
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        return self._post("?invalid=skip", gzip.compress(b"[]"), headers, timeout).accepted

    def _post(self, query: str, body: bytes, headers: dict[str, str], timeout: float) -> Answer:
        try:
            key = _checked(self._key if isinstance(self._key, str) else self._key())
        except Exception as error:  # the callable is another program's
            return _nothing(f"the key could not be had: {type(error).__name__}")
        headers |= {"Authorization": f"Bearer {key}", "User-Agent": "agentidp-analytics-client"}
        # The constructor has checked the scheme.
        request = urllib.request.Request(self._url + query, body, headers)  # noqa: S310
        try:
            with closing(self._opener.open(request, timeout=timeout)) as response:
                return _answer(response, time.monotonic() + timeout)
        except urllib.error.URLError as error:
            return _nothing(f"{type(error.reason).__name__}: {error.reason}")
        except Exception as error:  # whatever fails on the way is tried again
            return _nothing(type(error).__name__)


def _checked(key: str) -> str:
    """A key that fits into a header; http.client would print another one in its error."""
    key = key.strip()
    if not _PRINTABLE.fullmatch(key):
        raise ValueError("the key is empty, or has a space or another character that no key has")
    return key


def _nothing(problem: str) -> Answer:
    return Answer(0, {}, 0.0, problem)


def _answer(response: http.client.HTTPResponse, deadline: float) -> Answer:
    read = b""
    while part := response.read1(65536):
        read += part
        if len(read) > MAX_ANSWER_BYTES or time.monotonic() > deadline:
            return _nothing("the answer is too long or too slow")
    try:
        body = json.loads(read)
    except (ValueError, RecursionError):
        body = {}
    if not isinstance(body, dict):
        body = {}
    return Answer(
        response.status,
        body,
        retry_after(response.headers.get("Retry-After", "")),
        _problem(response.status, body),
    )


def _problem(status: int, body: dict[str, Any]) -> str:
    """Why nothing was accepted; empty if the answer is a receipt."""
    if status != ACCEPTED:
        code = body.get("code")
        return f"status {status} {code if isinstance(code, str) else ''}"[:80].strip()
    # A login page or another program may answer with any status.
    counts = (body.get(name) for name in ("received", "accepted", "duplicates"))
    if all(type(count) is int and count >= 0 for count in counts):
        return ""
    return "the answer is not that of the service"


def retry_after(text: str) -> float:
    """The seconds of a ``Retry-After``: a number or an HTTP date; 0 without a valid one."""
    text = text.strip()
    try:
        if text.isascii() and text.isdigit():
            seconds = float(text[:9])
        else:
            moment = parsedate_to_datetime(text)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            seconds = (moment - datetime.now(UTC)).total_seconds()
    except (ValueError, OverflowError):
        return 0.0
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)


class _AsTheyCome(urllib.request.HTTPErrorProcessor):
    """Answers of every status. A redirect is not followed, since it would take the key along."""

    def http_response(self, request: urllib.request.Request, response: Any) -> Any:
        return response

    https_response = http_response


class _Early:
    """A connection that reads an answer even if the server closes before it has all of the body.

    A server answers a body that is too large in this way.
    """

    sock: Any

    def send(self, data: Any) -> None:
        connected = self.sock is not None
        try:
            super().send(data)  # type: ignore[misc]  # of the connection beside this class
        except (BrokenPipeError, ConnectionResetError):
            if not connected:
                raise


class _HttpConnection(_Early, http.client.HTTPConnection):
    pass


class _HttpsConnection(_Early, http.client.HTTPSConnection):
    pass


class _Http(urllib.request.HTTPHandler):
    def http_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(_HttpConnection, request)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(_HttpsConnection, request)
