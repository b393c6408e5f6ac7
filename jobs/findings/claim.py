"""The claim of detection: one process judges at a time.

The claim ends after some seconds without a sign, so that another process goes on when one dies.
A process that was only slow may then meet its successor. So each claim has a number, the turn,
and whatever is stored is stored in a transaction that checks the turn first.
"""

import time
from datetime import datetime, timedelta
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql, sqlite

from app.errors import UnavailableError
from app.storage.database import Database
from app.storage.tables import detection_state
from app.storage.types import database_now

CLAIM_SECONDS = 60
POLL_SECONDS = 0.5
KEEP_SECONDS = 15.0
_STATE = detection_state.c


class LostClaimError(Exception):
    """Another process has claimed detection, so nothing was stored."""


class Claim(NamedTuple):
    """This process's turn, and the state of detection at its beginning.

    ``now`` is the database's time of the claim.
    """

    turn: int
    now: datetime
    noted_upto: int
    noted_correction: int
    measured_upto: int
    measured_at: datetime | None
    last_finished: datetime | None

    def renew(self, connection: Connection) -> None:
        """Keep the claim, in the transaction that stores something.

        Raises:
            LostClaimError: another process has it.
        """
        self.note(connection, claimed_until=_until(connection))

    def note(self, connection: Connection, **values: object) -> None:
        """Set columns of the state, in the caller's transaction.

        Raises:
            LostClaimError: as above.
        """
        statement = sa.update(detection_state).where(_STATE.turn == self.turn).values(**values)
        if connection.execute(statement).rowcount == 0:
            raise LostClaimError

    def release(self, database: Database, **values: object) -> None:
        """Give the claim back, and set columns of the state.

        Raises:
            LostClaimError: as above.
        """
        database.write(lambda connection: self.note(connection, claimed_until=None, **values))


class Keeper:
    """Keeps a claim while days are judged: an organization may take longer than a claim lasts."""

    def __init__(self, database: Database, claim: Claim) -> None:
        self._database = database
        self._claim = claim
        self._kept = time.monotonic()

    def keep(self) -> None:
        """Renew the claim if some seconds have passed.

        Raises:
            LostClaimError: another process has it.
        """
        if time.monotonic() - self._kept >= KEEP_SECONDS:
            self._database.write(self._claim.renew)
            self._kept = time.monotonic()


def claim(database: Database) -> Claim | None:
    """Claim detection; ``None`` if another process judges at this moment."""
    return database.write(_claim)


def await_claim(database: Database, seconds: float) -> Claim:
    """Claim detection, and wait for a process that judges at this moment.

    Raises:
        UnavailableError: another process judged all the time.
    """
    give_up = time.monotonic() + seconds
    while (found := claim(database)) is None:
        if time.monotonic() > give_up:
            raise UnavailableError("a scheduler is judging findings; run this again")
        time.sleep(POLL_SECONDS)
    return found


def _claim(connection: Connection) -> Claim | None:
    upsert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    connection.execute(upsert(detection_state).values(id=1).on_conflict_do_nothing())
    row = connection.execute(
        sa.select(detection_state, database_now().label("now")).with_for_update(skip_locked=True)
    ).one_or_none()
    if row is None:
        return None
    # A claim far in the future means that the clock was set back.
    left = None if row.claimed_until is None else row.claimed_until - row.now
    if left is not None and timedelta(0) < left <= timedelta(seconds=CLAIM_SECONDS):
        return None
    claimed = Claim(
        row.turn + 1,
        row.now,
        row.noted_upto,
        row.noted_correction,
        row.measured_upto,
        row.measured_at,
        row.last_finished,
    )
    until = row.now + timedelta(seconds=CLAIM_SECONDS)
    connection.execute(sa.update(detection_state).values(turn=claimed.turn, claimed_until=until))
    return claimed


def _until(connection: Connection) -> datetime:
    now: datetime = connection.execute(sa.select(database_now())).scalar_one()
    return now + timedelta(seconds=CLAIM_SECONDS)
