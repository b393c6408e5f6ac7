"""Verify: compare the summary tables with a recount of the raw events, while ingest continues."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any

from app.storage.citus import is_citus
from app.storage.database import Database
from jobs.counting.state import read_state
from jobs.counting.tables import FOR_GOOD, SUMMARY_TABLES, Retention
from jobs.recount.difference import Scope, difference, scope


@dataclass(frozen=True)
class Drift:
    """A bucket whose stored number or mask of hours differs from the recount."""

    table: str
    key: dict[str, Any]
    stored: int
    recounted: int
    stored_hours: int | None = None
    recounted_hours: int | None = None


@dataclass(frozen=True)
class Verification:
    """The verified months, the watermark, and the differences, which are read one at a time."""

    watermark: int
    scope: Scope
    drift: Iterator[Drift]


@contextmanager
def verification(
    database: Database,
    first: date | None = None,
    last: date | None = None,
    *,
    retention: Retention = FOR_GOOD,
    on_table: Callable[[int, int], None] = lambda _done, _all: None,
) -> Iterator[Verification]:
    """Recount the months ``first`` to ``last`` (all by default) in one snapshot.

    Ingest, runs and reads continue meanwhile. Only on a cluster do runs wait, because its nodes
    share no snapshot. Months whose raw events were purged cannot be verified; the scope names them.

    Args:
        retention: for how many days summary tables keep their rows; older months are not verified.
        on_table: called with the number of verified tables and of all tables.
    """
    with database.reading() as connection:
        distributed = is_citus(connection)
    with database.snapshot(current=distributed) as connection:
        watermark = read_state(connection, lock=distributed).counted_upto
        months = scope(connection, first, last, retention)

        def drift() -> Iterator[Drift]:
            for done, summary in enumerate(SUMMARY_TABLES):
                on_table(done, len(SUMMARY_TABLES))
                rows = connection.execute(
                    difference(summary, months), execution_options={"stream_results": True}
                )
                for row in rows.mappings():
                    key = {name: row[name] for name in summary.keys}
                    masks = {
                        f"{side}_{name}": row[f"{side}_{name}"]
                        for name in summary.masks
                        for side in ("stored", "recounted")
                    }
                    stored, recounted = row["stored_issued"], row["recounted_issued"]
                    yield Drift(summary.name, key, stored, recounted, **masks)
            on_table(len(SUMMARY_TABLES), len(SUMMARY_TABLES))

        yield Verification(watermark, months, drift())
