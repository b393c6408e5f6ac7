"""P1: deleting the events that are due, alone and while others arrive."""

from collections.abc import Iterator
from dataclasses import dataclass
from threading import Event as Signal
from threading import Thread

from app.storage.database import Database
from benchmarks import data
from benchmarks.bench import Bench
from benchmarks.cluster import Connection
from benchmarks.figures import (
    BenchmarkError,
    Figure,
    Rival,
    Samples,
    faster,
    interleaved,
    more,
    seconds,
    timed,
)
from benchmarks.ingest import BATCH, Poster
from benchmarks.service import Service, service
from jobs.retention import purge_events

EVENTS = 500_000
RETENTION_DAYS = 90
INSERT = f"""
    INSERT INTO issuance_events ({data.COLUMNS}, received_at)
    SELECT *, now() - interval '{RETENTION_DAYS + 10} days' FROM ({{}}) AS event
"""


def due_events(bench: Bench) -> Iterator[Figure]:
    """P1: delete the events that are due."""
    events, poster, name = bench.scaled(EVENTS), Poster(bench), bench.cluster.create()
    with (
        bench.cluster.connect(name) as connection,
        bench.cluster.database(name) as database,
        service(bench.cluster.url(name), bench.folder) as running,
    ):
        one = _Due(bench, connection, database, events)
        poster.post(running, 1)
        turns = (
            one.store,
            one.purge,
            lambda: poster.post(running, bench.seconds).rate * BATCH,
            lambda: one.posted_beside(poster, running),
        )
        stored, purged, alone, beside = interleaved(max(bench.repetitions // 2, 1), turns)
    work = f"delete {events:,} events that are due"
    yield faster("P1a", work, seconds(purged), Rival("INSERT of the same", seconds(stored)), 1)
    posted, rival = Samples(tuple(beside), "/s"), Samples(tuple(alone), "/s")
    yield more("P1b", "POST /api/v1/events beside it", posted, Rival("alone", rival), 0.5)


@dataclass
class _Due:
    """A database with counted events that are due."""

    bench: Bench
    connection: Connection
    database: Database
    events: int
    batches: int = 0

    def store(self) -> float:
        """The seconds of an INSERT of events that are due; they are counted afterwards."""
        # A purge goes on from the oldest id, and does not look behind many recent events.
        self.connection.execute("TRUNCATE issuance_events")
        self.batches += 1
        statement = INSERT.format(data.events(self.events, after=self.batches * 1_000_000_000))
        took = timed(lambda: self.connection.execute(statement))
        self.bench.roll_up(self.database)
        data.settle(self.connection)
        return took

    def purge(self) -> float:
        """The seconds of their deletion."""
        deleted: list[int] = []
        took = timed(
            lambda: deleted.append(
                purge_events(self.database, retention_days=RETENTION_DAYS).events
            )
        )
        if deleted != [self.events]:
            raise BenchmarkError(f"{deleted[0]} of {self.events} events were deleted")
        return took

    def posted_beside(self, poster: Poster, running: Service) -> float:
        """The events posted in a second while such events are deleted."""
        self.store()
        stop = Signal()
        purging = Thread(
            target=purge_events,
            args=[self.database],
            kwargs={"retention_days": RETENTION_DAYS, "stop": stop},
        )
        purging.start()
        try:
            rate = poster.post(running, self.bench.seconds).rate * BATCH
            ended_early = not purging.is_alive()
        finally:
            stop.set()
            purging.join()
        if ended_early and self.bench.scale >= 1:
            raise BenchmarkError("the deletion ended before the load did")
        purge_events(self.database, retention_days=RETENTION_DAYS)
        return rate
