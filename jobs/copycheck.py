"""Whether a database still is the copy that was left there: the rows it holds against the
source's, before anything in it is changed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table

from app.errors import RefusedError
from app.storage.tables import agents, daily_issuance, issuance_events, rollup_corrections
from jobs.bulk import Pair, differences, key_getter, read_rows
from jobs.copymark import Mark


@dataclass(frozen=True)
class Origin:
    """A snapshot of the source: its watermark in it, and the newest id drawn there."""

    connection: Connection
    watermark: int
    newest: int


def count_gone(
    origin: Origin, target: Connection, mark: Mark, on_rows: Callable[[int], None]
) -> int:
    """How many events are gone from the source since they were copied.

    Raises:
        RefusedError: the target differs in any other way from the source as it was then.
    """
    if mark.upto > origin.newest:
        raise RefusedError("the target is no copy of the source: it has events beyond it")
    _refuse_other_numbers(origin, target)
    refuse_other_names(origin, target)
    return sum(1 for _ in gone(origin, target, mark, on_rows))


def gone(
    origin: Origin, target: Connection, mark: Mark, on_rows: Callable[[int], None] | None = None
) -> Iterator[int]:
    """Ids of copied events that the source has no longer: purged ones. Raises as above."""
    before = issuance_events.c.id <= mark.upto
    with (
        read_rows(origin.connection, issuance_events, before, on_rows=on_rows) as mine,
        read_rows(target, issuance_events, before) as theirs,
    ):
        key = key_getter(issuance_events)
        for one, other in differences(mine, theirs, key):
            (event_id,) = key(one or other or ())
            # Only events that are counted are ever purged.
            if one is not None or event_id > origin.watermark:
                raise RefusedError(
                    f"the target is in use, or no copy of the source: event {event_id} differs"
                )
            yield event_id


def refuse_other_names(origin: Origin, target: Connection) -> None:
    """Refuse a target that has named agents itself.

    At the source a name gives way to later ones alone, and its row never goes.
    """
    named_at = list(agents.c).index(agents.c.named_at)
    with _both(origin, target, agents) as pairs:
        for one, other in pairs:
            if other is not None and (one is None or one[named_at] < other[named_at]):
                raise RefusedError("the target is in use: it has names of its own")


def _refuse_other_numbers(origin: Origin, target: Connection) -> None:
    """Numbers stay when their events are purged: they tell whose copy it is."""
    corrected = False
    with _both(origin, target, rollup_corrections) as pairs:
        for _, other in pairs:
            if other is not None:
                raise RefusedError("the target is in use: it has corrections of its own")
            corrected = True
    if corrected:
        return  # and a correction at the source may have taken days away
    with _both(origin, target, daily_issuance) as pairs:
        if any(one is None for one, _ in pairs):
            raise RefusedError("the target is no copy of the source: it has other days")


@contextmanager
def _both(origin: Origin, target: Connection, table: Table[Any]) -> Iterator[Iterator[Pair]]:
    with (
        read_rows(origin.connection, table) as mine,
        read_rows(target, table) as theirs,
    ):
        yield differences(mine, theirs, key_getter(table))
