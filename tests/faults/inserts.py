"""A writer that inserts by itself, as an identity provider may, in every way there is."""

import random
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import psycopg

from app.intake.events import Event

COLUMNS = "(tenant_id, event_id, agent_id, issued_at)"
INSERT = f"INSERT INTO issuance_events {COLUMNS} VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING"
COPY = f"COPY issuance_events {COLUMNS} FROM STDIN"
STAGE = (
    "CREATE TEMP TABLE staged ON COMMIT DROP AS"
    " SELECT tenant_id, event_id, agent_id, issued_at FROM issuance_events WITH NO DATA"
)
COPY_STAGED = f"COPY staged {COLUMNS} FROM STDIN"
UNSTAGE = (
    f"INSERT INTO issuance_events {COLUMNS}"
    " SELECT tenant_id, event_id, agent_id, issued_at FROM staged ON CONFLICT DO NOTHING"
)
MAX_OPEN_SECONDS = 0.5
PREPARED = 0.2


def columns(events: Iterable[Event]) -> list[tuple[Any, ...]]:
    """What ``INSERT`` takes of each event; who writes straight into the table names no agent."""
    return [event[:4] for event in events]


class Direct:
    """One connection and its transactions, which stay open for up to half a second.

    A failure, be it a deadlock or the database's absence, closes the connection and is
    raised; whether the transaction committed may then be unknown.
    """

    def __init__(
        self, conninfo: str, dice: random.Random, name: str, *, prepared: bool = True
    ) -> None:
        self.done: Counter[str] = Counter()
        self._conninfo, self._dice, self._name = conninfo, dice, name
        self._prepared = PREPARED if prepared else 0
        self._connection: psycopg.Connection | None = None
        self._undecided: tuple[str, str] | None = None

    def commit(self, events: Sequence[Event]) -> None:
        """Store the events; returns once that is acknowledged."""
        self._transaction(events, "COMMIT")

    def roll_back(self, events: Sequence[Event]) -> None:
        """Insert the events and take them back; returns once that is certain."""
        self._transaction(events, "ROLLBACK")

    def settle(self) -> None:
        """Decide on a prepared transaction whose connection died, if there is one."""
        if self._undecided is not None:
            try:
                self._open()
            except psycopg.Error:
                self.close()
                raise

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _transaction(self, events: Sequence[Event], verdict: str) -> None:
        way = self._dice.choice([self._plainly, self._with_savepoints, self._staged, self._copied])
        try:
            connection = self._open()
            connection.execute("BEGIN")
            try:
                way(connection, list(events))
            except psycopg.errors.UniqueViolation:  # COPY alone cannot skip what is there
                connection.execute("ROLLBACK")
                connection.execute("BEGIN")
                self._plainly(connection, list(events))
            # A temporary table forbids PREPARE TRANSACTION.
            self._end(connection, verdict, preparable=way != self._staged)
        except psycopg.Error:
            self.close()
            raise
        self.done[way.__name__.strip("_")] += 1
        self.done[verdict.lower()] += 1

    def _open(self) -> psycopg.Connection:
        if self._connection is None:
            self._connection = psycopg.connect(
                self._conninfo, autocommit=True, application_name=self._name
            )
        if self._undecided is not None:
            # Whether PREPARE or the verdict on it came through, the connection died over it.
            self._dawdle(1)
            with suppress(psycopg.errors.UndefinedObject):
                self._decide(self._connection)
            self._undecided = None
        return self._connection

    def _end(self, connection: psycopg.Connection, verdict: str, *, preparable: bool) -> None:
        if not preparable or self._dice.random() >= self._prepared:
            connection.execute(verdict)
            return
        self._undecided = (verdict, f"{self._name}-{self._dice.getrandbits(64):x}")
        connection.execute(f"PREPARE TRANSACTION '{self._undecided[1]}'")
        self._dawdle(2)
        self._decide(connection)
        self._undecided = None
        self.done["prepared"] += 1

    def _decide(self, connection: psycopg.Connection) -> None:
        verdict, gid = self._undecided
        connection.execute(f"{verdict} PREPARED '{gid}'")

    def _dawdle(self, steps: int) -> None:
        time.sleep(self._dice.uniform(0, MAX_OPEN_SECONDS / steps))

    def _plainly(self, connection: psycopg.Connection, events: list[Event]) -> None:
        steps = self._dice.randint(1, 4)
        for step in range(steps):
            connection.cursor().executemany(INSERT, columns(events[step::steps]))
            self._dawdle(steps)

    def _with_savepoints(self, connection: psycopg.Connection, events: list[Event]) -> None:
        """Two parts: one inserted and rolled back first, one in a savepoint that is kept."""
        half = len(events) // 2
        connection.execute("SAVEPOINT a")
        connection.cursor().executemany(INSERT, columns(events[:half]))
        phantom = events[0]._replace(event_id=f"phantom of {events[0].event_id}")
        connection.execute(INSERT, *columns([phantom]))
        self._dawdle(2)
        connection.execute("ROLLBACK TO a")
        connection.cursor().executemany(INSERT, columns(events[:half]))
        connection.execute("SAVEPOINT b")
        connection.cursor().executemany(INSERT, columns(events[half:]))
        self._dawdle(2)
        connection.execute("RELEASE b")

    def _staged(self, connection: psycopg.Connection, events: list[Event]) -> None:
        connection.execute(STAGE)
        self._copy(connection, COPY_STAGED, events)
        connection.execute(UNSTAGE)
        self._dawdle(1)

    def _copied(self, connection: psycopg.Connection, events: list[Event]) -> None:
        half = len(events) // 2
        self._copy(connection, COPY, events[:half])
        self._dawdle(1)
        self._copy(connection, COPY, events[half:])

    def _copy(self, connection: psycopg.Connection, statement: str, events: list[Event]) -> None:
        with connection.cursor().copy(statement) as copy:
            for row in columns(events):
                copy.write_row(row)
