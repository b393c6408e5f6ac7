"""A client's connection and request body, with limits on the wait for a slow or silent client."""

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from gunicorn.http.errors import ParseException

from app.errors import RequestTimeoutError, ServiceError, UnavailableError, ValidationError
from app.waits import place_left

# How long a client may take to send the head of a request, and its body.
HEAD_SECONDS = 10.0
BODY_SECONDS = 30.0
# How long a client may read nothing of its answer, and how fast it has to read a large one.
ANSWER_SECONDS = 30.0
ANSWER_BYTES_PER_SECOND = 65536
# How long a thread waits for a client while as many threads as allowed wait for clients already.
CROWDED_SECONDS = 0.02
# If an answer did not need the body, this is how long a small body may be on its way. Then the
# connection can be used again.
UNREAD_SECONDS = 0.2
# Otherwise the connection ends, and the rest of the request is read and discarded before, up to
# these limits. If it were closed while the client still sends, the answer would be lost.
REST_SECONDS = 2.0
REST_BYTES = 32 << 20
_STEP = 1 << 16

# A worker reads the rest of one request at a time.
_rest_lock = threading.Lock()


class SilentClientError(OSError):
    """The client took too long to send or to read."""


class CrowdedError(OSError):
    """Too many requests wait already."""


class ClientSocket(socket.socket):
    """A connection whose waits for the client are limited in time and in number.

    Args:
        connection: the accepted connection, which this object replaces.
        waiting: limits the threads that wait for clients at once.
    """

    def __init__(self, connection: socket.socket, waiting: threading.BoundedSemaphore) -> None:
        super().__init__(fileno=connection.detach())
        self._waiting = waiting
        self.begin()

    def begin(self) -> None:
        """Begin to read a request."""
        self.gave_up = False  # the client was silent for too long
        self.has_rest = False  # a part of the request was not read
        self.allow(HEAD_SECONDS)

    def allow(self, seconds: float) -> None:
        """Give the client this time for the next part of a request."""
        self._until = time.monotonic() + seconds
        self._crowded_seconds = CROWDED_SECONDS

    def recv(self, size: int, flags: int = 0) -> bytes:
        if self.gettimeout() is not None:
            return super().recv(size, flags)
        while True:
            try:
                return super().recv(size, flags | socket.MSG_DONTWAIT)
            except BlockingIOError:
                self._wait(select.POLLIN)

    def sendall(self, data: Any, flags: int = 0) -> None:
        if self.gettimeout() is not None:
            super().sendall(data, flags)
            return
        rest, end = memoryview(data), 0.0
        while rest:
            try:
                rest = rest[self.send(rest, flags | socket.MSG_DONTWAIT) :]
            except BlockingIOError:
                if not end:
                    self.allow(ANSWER_SECONDS + len(rest) / ANSWER_BYTES_PER_SECOND)
                    end = self._until
                self._until = min(end, time.monotonic() + ANSWER_SECONDS)
                self._wait(select.POLLOUT)

    def discard_rest(self) -> None:
        """Read and discard what the client still sends, so that it can read its answer."""
        if not self._waiting.acquire(blocking=False):
            return
        try:
            if _rest_lock.acquire(timeout=REST_SECONDS):
                try:
                    self._discard(time.monotonic() + REST_SECONDS)
                finally:
                    _rest_lock.release()
        finally:
            self._waiting.release()

    def _discard(self, until: float) -> None:
        self.shutdown(socket.SHUT_WR)  # a client that waits for the end of the connection sees it
        buffer = bytearray(_STEP)
        received, size = 0, 1
        while size and received < REST_BYTES and (left := until - time.monotonic()) > 0:
            self.settimeout(left)
            size = self.recv_into(buffer)
            received += size

    def _wait(self, event: int) -> None:
        """Wait until the client has sent or read something.

        Raises:
            SilentClientError: the client's time is over.
            CrowdedError: too many requests wait.
        """
        poll = select.poll()
        poll.register(self, event)
        began = time.monotonic()
        left = max(0.0, self._until - began)
        if self._waiting.acquire(blocking=False):
            error: type[OSError] = SilentClientError
            try:
                with place_left():
                    ready = poll.poll(left * 1000)
            except UnavailableError:
                ready, error = [], CrowdedError
            finally:
                self._waiting.release()
        else:
            ready = poll.poll(max(0.0, min(left, self._crowded_seconds)) * 1000)
            self._crowded_seconds -= time.monotonic() - began
            error = CrowdedError
        if not ready:
            self.gave_up = True
            raise error


class RequestBody:
    """A request's body. The client's faults raise the error that is its answer: 400, 408 or 503.

    Args:
        body: the body as gunicorn reads it.
        length: what the request says about its length; ``None`` for chunks.
        client: the connection that it comes from.
    """

    def __init__(self, body: Any, length: int | None, client: ClientSocket) -> None:
        self._body = body
        self._missing = length or 0
        self._client = client
        # gunicorn looks at this name: after a failure, it does not use the connection again.
        self.failed = False
        client.allow(BODY_SECONDS)

    def read(self, size: int | None = None) -> bytes:
        return self._checked(self._body.read, size)

    def readline(self, size: int | None = None) -> bytes:
        return self._checked(self._body.readline, size)

    def readlines(self, _size: int | None = None) -> list[bytes]:
        return list(self)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def finish(self) -> None:
        """After the answer: note whether the connection still has a rest of this body."""
        self.failed = self.failed or not self._has_ended()
        self._client.has_rest = self.failed

    def _has_ended(self) -> bool:
        """Whether all of the body is read, or the rest is short and arrives at once."""
        self._client.allow(UNREAD_SECONDS)
        try:
            rest = len(self._body.read(_STEP))
        except (ParseException, OSError):
            self._client.gave_up = False  # it had little time
            return False
        self._missing -= rest
        return rest < _STEP and self._missing <= 0

    def _checked(self, read: Callable[[int | None], bytes], size: int | None) -> bytes:
        """What ``read`` returns.

        Raises:
            RequestTimeoutError: the client was too slow.
            UnavailableError: too many threads wait for clients.
            ValidationError: the body is malformed or ended early.
        """
        try:
            data = read(size)
            self._missing -= len(data)
            if not data and size != 0 and self._missing > 0:
                raise EOFError
            return data
        except SilentClientError:
            error: ServiceError = RequestTimeoutError(
                "the body did not arrive in time; send the request again"
            )
        except CrowdedError:
            error = UnavailableError("too many requests wait at this moment; try again")
        except (ParseException, OSError, EOFError):
            error = ValidationError("the body is malformed or incomplete; send the request again")
        self.failed = True
        raise error
