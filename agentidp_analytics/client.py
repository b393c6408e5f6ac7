"""Client that records issued tokens. It sends them in batches, in the background.

    analytics = Client("https://analytics.example.com", key=os.environ["ANALYTICS_KEY"])
    analytics.record_token("client-1")

:meth:`Client.record_token` puts an event into a bounded queue. One thread sends the queue, and
repeats a request that was not accepted. Every event has an id, so a repetition counts once.
"""

import atexit
import json
import logging
import os
import random
import threading
import time
import uuid
import weakref
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Self

from agentidp_analytics.buffer import Buffer, Counts, Limits
from agentidp_analytics.delivery import Answer, Key, Service
from agentidp_analytics.events import Rejected, encoded, listed

__all__ = ["Client", "Counts", "Limits", "Rejected"]

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 60.0
LOG_AGAIN_SECONDS = 60.0

_DEFAULTS = Limits()
_logger = logging.getLogger("agentidp_analytics")
_clients: "weakref.WeakSet[Client]" = weakref.WeakSet()


class Client:
    """A queue of events, and the thread that sends it.

    Threads may share a client. After a fork, the queue and the counts of the child are empty: the
    parent sends the events that were recorded before.
    """

    def __init__(
        self,
        url: str,
        key: Key,
        *,
        on_rejected: Callable[[Rejected], object] | None = None,
        limits: Limits = _DEFAULTS,
    ) -> None:
        """A client of the service at ``url``, such as ``https://analytics.example.com``.

        Args:
            key: an API key, or a function that returns a valid access token, and is called for
                each request.
            on_rejected: is called for rejected events, in the client's thread: for all of a
                batch, or for the first hundred if the service lists no more.

        Raises:
            ValueError: the URL, the key or a limit cannot be used.
        """
        if min(limits) <= 0:
            raise ValueError("every limit must be above 0")
        self._service = Service(url, key)
        self._on_rejected = on_rejected
        self._limits = limits
        self._begin()
        _clients.add(self)
        atexit.register(self.close)

    def _begin(self) -> None:
        """Begin without events: at the start, and in a child after a fork, which has no thread."""
        self._buffer = Buffer(self._limits)
        self._thread: threading.Thread | None = None
        self._starting = threading.RLock()
        self._problem = ""
        self._logged: dict[str, float] = {}
        self._logged_drops = 0

    @property
    def counts(self) -> Counts:
        """What became of the events so far."""
        return self._buffer.counts

    def record_token(
        self,
        agent_id: str,
        *,
        event_id: str | None = None,
        issued_at: datetime | None = None,
        agent_name: str | None = None,
        organization_id: str | None = None,
    ) -> None:
        """Record that a token was issued. Returns at once, whatever the service does.

        Args:
            agent_id: the OAuth client that received the token.
            event_id: what identifies the token, such as the ``jti`` of a JWT; random by default.
                Never pass an opaque token itself.
            issued_at: a time with its zone; now by default.
            agent_name: the client's name for people.
            organization_id: the organization, if the key may write for all of them.
        """
        event = {
            "id": str(uuid.uuid4()) if event_id is None else event_id,
            "agentId": agent_id,
            "issuedAt": datetime.now(UTC) if issued_at is None else issued_at,
        }
        if agent_name is not None:
            event["agentName"] = agent_name
        if organization_id is not None:
            event["organizationId"] = organization_id
        if self._buffer.put(encoded(event)):
            self._start()

    def flush(self, timeout: float) -> bool:
        """Wait until the events recorded so far are sent or rejected. False after the timeout."""
        return self._buffer.flush(timeout)

    def close(self, timeout: float | None = None) -> None:
        """Send the events that wait, and end. After the timeout, the others are dropped.

        The interpreter calls this at its exit, with ``exit_seconds`` as the timeout. A process
        that ends in another way has to call it: a child of multiprocessing, or one that SIGTERM
        ends.
        """
        if self._buffer.closed:
            return
        timeout = self._limits.exit_seconds if timeout is None else timeout
        self._buffer.begin_to_close(timeout)
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
        atexit.unregister(self.close)
        if lost := self._buffer.close():
            _logger.warning("%d events were not sent before the end, and are lost", lost)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _start(self) -> None:
        """Start the thread, unless it is there."""
        if self._thread is not None and self._thread.is_alive():
            return
        with self._starting:
            if self._thread is not None and self._thread.is_alive():
                return
            thread = threading.Thread(target=self._run, name="agentidp-analytics", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # too many threads; the next event tries again
                return
            self._thread = thread

    def _run(self) -> None:
        """Send one batch after the other, until the client closes."""
        while items := self._buffer.take():
            lines = [item for item in items if isinstance(item, bytes)]
            if invalid := [item for item in items if isinstance(item, Rejected)]:
                self._reject(invalid, len(invalid))
            if lines and not self._deliver(lines):
                return
            self._log_drops()

    def _deliver(self, lines: list[bytes]) -> bool:
        """Send a batch until all its events are settled. False if the client closes before."""
        parts, tries = [lines], 0
        while parts and not self._buffer.expired:
            answer = self._service.post(parts[-1], self._buffer.patience())
            if answer.accepted:
                self._receive(parts.pop(), answer)
                tries = 0
            elif self._blames_an_event(answer):
                self._divide(parts, answer)
            elif self._pause(tries, answer):
                tries += 1
            else:
                return False
        return not parts

    def _blames_an_event(self, answer: Answer) -> bool:
        """Whether a request was refused because of its events, and not of the URL or the key.

        The service accepts an empty batch then.
        """
        return answer.may_blame_an_event and self._service.accepts_batches(self._buffer.patience())

    def _receive(self, lines: list[bytes], answer: Answer) -> None:
        """Count the events of a batch that the service has accepted."""
        if self._problem:
            _logger.warning("events are delivered again")
            self._problem = ""
        accepted = min(answer.body["accepted"], len(lines))
        duplicates = min(answer.body["duplicates"], len(lines) - accepted)
        self._buffer.settle(accepted=accepted, duplicates=duplicates)
        if rejected := len(lines) - accepted - duplicates:
            self._reject(listed(lines, answer.body.get("rejected")), rejected)

    def _divide(self, parts: list[list[bytes]], answer: Answer) -> None:
        """Halve the last part, which was refused as a whole, or give up its only event."""
        lines = parts.pop()
        if len(lines) > 1:
            middle = len(lines) // 2
            parts += [lines[middle:], lines[:middle]]
            return
        message = str(answer.body.get("message", answer.problem))
        self._reject([Rejected(json.loads(lines[0]), "", message)], 1)

    def _reject(self, known: list[Rejected], number: int) -> None:
        """Report rejected events, of which some are known, and count them."""
        reason = f"; the first: {known[0]}" if known else ""
        self._log_at_times("rejected", f"{number} events were rejected{reason}")
        try:
            if self._on_rejected is not None:
                for one in known:
                    self._on_rejected(one)
        except Exception as error:  # the function is the caller's, and the thread must go on
            self._log_at_times("callback", f"on_rejected raised {type(error).__name__}")
        self._buffer.settle(rejected=number)

    def _pause(self, tries: int, answer: Answer) -> bool:
        """Wait before the next attempt. False if the client closes before."""
        longest = min(FIRST_PAUSE_SECONDS * 2 ** min(tries, 10), LONGEST_PAUSE_SECONDS)
        spread = random.uniform(0.5, 1.0)  # noqa: S311 - not a secret
        if answer.problem != self._problem:
            self._problem = answer.problem
            _logger.warning("events are not delivered, and sent again: %s", answer.problem)
        self._log_drops()
        return self._buffer.pause(answer.retry_after + spread * longest, answer.retry_after)

    def _log_drops(self) -> None:
        dropped = self.counts.dropped
        if dropped > self._logged_drops and self._log_at_times(
            "dropped", f"the queue was full: {dropped} events were dropped so far"
        ):
            self._logged_drops = dropped

    def _log_at_times(self, kind: str, text: str) -> bool:
        """Log a warning, unless there was one of its kind in the last minute."""
        now = time.monotonic()
        if kind in self._logged and now - self._logged[kind] < LOG_AGAIN_SECONDS:
            return False
        self._logged[kind] = now
        _logger.warning(text)
        return True


def _begin_anew() -> None:
    for client in list(_clients):
        client._begin()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_begin_anew)
