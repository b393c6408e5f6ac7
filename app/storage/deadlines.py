"""Deadlines: every wait for PostgreSQL ends.

A statement can stay without an answer for four reasons, and each has its own limit.

- **The server is busy, or a lock is held.** The server itself ends the statement, by
  ``statement_timeout`` and ``lock_timeout``. A session gets them when it begins (``engines``).
- **The host is gone.** Nobody acknowledges what is sent. TCP ends the connection, by keepalives
  and ``tcp_user_timeout``.
- **A new connection gets no answer.** ``connect_timeout`` ends the attempt.
- **The server is frozen, or a network in between forwards nothing.** The server enforces no limit,
  and its kernel still acknowledges what is sent. So the client must end the wait. psycopg wakes up
  ten times a second while it waits, and :class:`Connection` then checks:

  - A request may wait until its end time (``app.waits``), also for a new connection. Without an
    end time, as for a part of a long answer, it may wait for ``REQUEST_SECONDS``.
  - The statement of a job or a command may take hours. When it has heard nothing for
    ``PROBE_SECONDS``, it asks on a second connection. It ends only if that one gets no answer
    either.

A request that heard nothing closes the *gate* of its process, if no other request did either. Then
requests are refused at once, instead of waiting one after the other. One thread probes the server,
and opens the gate as soon as it answers.
"""

import logging
import math
import select
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

import psycopg
from psycopg.abc import RV, PQGen
from psycopg.errors import ConnectionTimeout
from psycopg.waiting import Ready

from app.errors import UnavailableError
from app.waits import REQUEST_SECONDS, seconds_left

# The same limit on the server, so that it does not work on for a request that has given up.
REQUEST_STATEMENT_SECONDS = 7.0
# How long a pooled connection may take to answer a ping. Then a new one is opened.
PING_SECONDS = 2.0
# How long it may take to open a connection to one host and to set up its session: for requests, and
# for others.
REQUEST_CONNECT_SECONDS = 3
CONNECT_SECONDS = 5
PROBE_SECONDS = 5.0
# The pause between two probes of a closed gate.
PAUSE_SECONDS = 0.5

# For a host that is gone. A read waits for 10 + 3 * 5 s, and what is sent waits for 10 s.
TCP = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}

NO_ANSWER = "the database does not answer"

log = logging.getLogger("app")


class NoAnswerError(psycopg.OperationalError):
    """The server has not answered in time. The connection is closed."""


class Server:
    """A PostgreSQL server: connects to it, and notices when it does not answer.

    Args:
        for_requests: the connections are for requests of the web; otherwise for jobs and commands.
        on_return: called when a server that did not answer answers again.
    """

    def __init__(self, *, for_requests: bool, on_return: Callable[[], object]) -> None:
        self.request_seconds = REQUEST_SECONDS if for_requests else None
        self.connect_seconds = REQUEST_CONNECT_SECONDS if for_requests else CONNECT_SECONDS
        self.answered_at = time.monotonic()
        self._on_return = on_return
        self._lock = threading.Lock()
        self._silent = False
        self._address: Mapping[str, Any] = {}

    def connect(self, **parameters: Any) -> "Connection":
        """A new connection. It must be set up within ``connect_seconds``."""
        self._address = parameters
        hosts = str(parameters.get("host", "")).count(",") + 1
        # psycopg tries each host for that long, and for two seconds at least.
        seconds = max(self.connect_seconds // hosts, 2)
        try:
            connection = Connection.connect(**{**parameters, "connect_timeout": seconds})
        except (ConnectionTimeout, NoAnswerError) as error:
            self.missed()
            raise NoAnswerError(f"{NO_ANSWER}: no connection was made in time") from error
        connection.server = self
        connection.limit(self.connect_seconds)
        return connection

    def check(self) -> None:
        """Refuse a request while the gate is closed, or when it has no time left.

        Raises:
            UnavailableError: the server has not answered yet, or the request's end time has come.
        """
        if self._silent:
            raise UnavailableError(f"{NO_ANSWER}; try again")
        if not seconds_left():
            raise UnavailableError("the request took too long; try again")

    def missed(self) -> None:
        """After a wait in vain: close the gate, unless another connection was answered."""
        if self.request_seconds is None:
            return
        with self._lock:
            heard = time.monotonic() - self.answered_at < self.connect_seconds
            if self._silent or heard:
                return
            self._silent = True
        log.error("%s; requests are refused until it does", NO_ANSWER)
        probe = threading.Thread(target=self._await_answer, name="database-probe", daemon=True)
        try:
            probe.start()
        except BaseException:
            self._silent = False  # nothing would open the gate
            raise

    def answers(self, address: Mapping[str, Any] | None = None) -> bool:
        """Whether a new connection gets an answer, of any kind: an error is one as well."""
        probe = Server(for_requests=False, on_return=lambda: None)
        try:
            with closing(probe.connect(**{**self._address, **(address or {})})) as connection:
                connection.execute("SELECT 1")
        except NoAnswerError:
            return False
        except psycopg.Error:
            return True
        return True

    def _await_answer(self) -> None:
        """Probe until the server answers, and open the gate whatever happens."""
        while not self._probe():
            time.sleep(PAUSE_SECONDS)
        try:
            self._on_return()
        finally:
            self.answered_at = time.monotonic()
            self._silent = False
            log.warning("the database answers again")

    def _probe(self) -> bool:
        try:
            return self.answers()
        except Exception as error:  # such as a process without a free file descriptor
            log.error("the database cannot be probed: %s", type(error).__name__)
            return False


class Connection(psycopg.Connection[Any]):
    """A connection whose waits end, although its server is silent."""

    server: Server
    # The monotonic time when a wait ends; None: when a probe gets no answer.
    _until: float | None = None
    # Whether a wait ends then although its request has time left.
    _is_brief = False
    _closes_gate = True
    # When the server was last heard, during a wait.
    _heard = 0.0

    @classmethod
    def _connect_gen(cls, *arguments: Any, **options: Any) -> Any:
        """Open a connection; psycopg calls this for one host after the other.

        ``connect_timeout`` is for each host, and the end of a request is for all of them.
        """
        until = time.monotonic() + seconds_left()

        def check(_ready: int) -> None:
            if time.monotonic() >= until:
                raise NoAnswerError(f"{NO_ANSWER}: the request took too long")

        return _checked(super()._connect_gen(*arguments, **options), check)

    def limit(self, seconds: float | None = None, *, closes_gate: bool = True) -> None:
        """End later waits after so many seconds from now in all.

        Without a number, a request's end with the request, and a job's by probes.
        """
        self._is_brief = seconds is not None
        if seconds is None:
            seconds = self.server.request_seconds
        self._until = None if seconds is None else time.monotonic() + seconds
        self._closes_gate = closes_gate

    def wait(self, gen: PQGen[RV], *arguments: Any, **options: Any) -> RV:
        """Run one step of the protocol; psycopg waits for the server nowhere else."""
        self._heard = time.monotonic()
        checked: PQGen[RV] = _checked(gen, self._check)
        return super().wait(checked, *arguments, **options)

    def _check(self, ready: int) -> None:
        """Note an answer. While nothing arrives, find out whether the wait is over.

        Raises:
            NoAnswerError: the wait is over.
        """
        now = time.monotonic()
        if ready:
            if ready & Ready.R:
                self.server.answered_at = self._heard = now
            return
        if self._until is not None:
            if not self._is_over(self._until):
                return
            if self._closes_gate:
                self.server.missed()
        elif now - self._heard < PROBE_SECONDS:
            return
        elif self._server_answers():
            self._heard = time.monotonic()
            return
        self.close()
        raise NoAnswerError(f"{NO_ANSWER}: the connection was silent for {now - self._heard:.0f} s")

    def _is_over(self, until: float) -> bool:
        left = seconds_left()
        if left < math.inf and not self._is_brief:
            return not left
        return not left or time.monotonic() >= until

    def _server_answers(self) -> bool:
        """Whether a probe of the same host is answered, or this connection is meanwhile."""
        host = {name: getattr(self.info, name) for name in ("host", "hostaddr", "port")}
        # Another host must not answer, and any role of this host may.
        host |= {"target_session_attrs": "any"}
        if self.server.answers(host):
            return True
        readable = select.poll()
        readable.register(self.fileno(), select.POLLIN)
        return bool(readable.poll(0))


def _checked(gen: Any, check: Callable[[int], None]) -> Any:
    """``gen``, which waits for the server, with a check each time when psycopg wakes up."""
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            check(ready)
            wanted = gen.send(ready)
    except StopIteration as done:
        return done.value
