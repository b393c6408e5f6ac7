"""Fixtures: a follower of a log, on SQLite unless a test asks for both databases."""

import random
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from app.intake.formats import FORMATS, Options
from app.intake.sources.follow import Follower
from app.intake.sources.records import RecordReader
from app.storage.database import Database
from app.storage.tables import issuance_events, source_positions
from tests.support.log_files import RotatedLog
from tests.support.settings import EVENT_BYTES, make_settings

NOW = datetime(2026, 6, 1, tzinfo=UTC)


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Follow:
    """Followers of one log, which can be restarted."""

    def __init__(self, database, path):
        self.database = database
        self.path = path
        self.clock = Clock()
        self.host = "host-1"
        self.options = Options(None, EVENT_BYTES)
        self.rejects = None
        self.follower = None
        self.start()

    def start(self):
        """A new process, after the old one has died."""
        if self.follower is not None:
            self.follower.close()
        reader = RecordReader(
            "audit", FORMATS["ndjson"], self.options, lambda: NOW, rejects=self.rejects
        )
        self.follower = Follower(self.database, reader, self.path, self.host, self.clock)

    def catch_up(self, *, seconds=0.0):
        """Turns until there is nothing more, ``seconds`` later."""
        self.clock.now += seconds
        for _ in range(200):
            if not self.follower.turn():
                return
        raise AssertionError("the follower finds no end")

    def ids(self):
        return stored_ids(self.database)

    def row(self):
        with self.database.reading() as connection:
            return connection.execute(sa.select(source_positions)).one()


def stored_ids(database):
    with database.reading() as connection:
        return sorted(connection.scalars(sa.select(issuance_events.c.event_id)))


@pytest.fixture
def sqlite(sqlite_url):
    database = Database(make_settings(sqlite_url).database_url)
    yield database
    database.dispose()


@pytest.fixture
def path(tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    return folder / "audit.log"


@pytest.fixture
def follow(sqlite, path):
    follow = Follow(sqlite, path)
    yield follow
    follow.follower.close()


@pytest.fixture
def written(path):
    """The log, as its writer has it."""
    log = RotatedLog(path, random.Random(7))
    yield log
    log.close()
