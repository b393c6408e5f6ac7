"""Verify: prove the summary tables against the raw events, while everything goes on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any

from app.storage.citus import is_citus
from app.storage.database import Database
from jobs.counting.state import read_state
from jobs.counting.tables import SUMMARY_TABLES
from jobs.recount.difference import Scope, difference, scope


@dataclass(frozen=True)
class Drift:
    """A bucket whose number is not the recounted one."""

    table: str
    key: dict[str, Any]
    stored: int
    recounted: int


@dataclass(frozen=True)
class Verification:
    """What is verified, up to which event, and the differences, read as they are found."""

    watermark: int
    scope: Scope
    drift: Iterator[Drift]


@contextmanager
def verification(
    database: Database,
    first: date | None = None,
    last: date | None = None,
    *,
    on_table: Callable[[int, int], None] = lambda _done, _all: None,
) -> Iterator[Verification]:
    """Recount the months ``first`` to ``last`` (all by default) in one snapshot.

    Ingest, runs and reads go on meanwhile; on a cluster, where there is no one snapshot of all
    nodes, runs wait. Months whose raw events were purged cannot be
    verified and are named in the scope instead.

    Args:
        on_table: told how many tables are verified, of how many.
    """
    with database.reading() as connection:
        spread = is_citus(connection)
    with database.snapshot(current=spread) as connection:
        watermark = read_state(connection, lock=spread).watermark
        months = scope(connection, first, last)

        def drift() -> Iterator[Drift]:
            for done, summary in enumerate(SUMMARY_TABLES):
                on_table(done, len(SUMMARY_TABLES))
                rows = connection.execute(
                    difference(summary, months.ranges), execution_options={"stream_results": True}
                )
                for row in rows:
                    *key, stored, recounted = row
                    names = dict(zip(summary.keys, key, strict=True))
                    yield Drift(str(summary.name), names, stored, recounted)
            on_table(len(SUMMARY_TABLES), len(SUMMARY_TABLES))

        yield Verification(watermark, months, drift())
