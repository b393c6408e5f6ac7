"""Digests: adds those of the last week and month to the outbox, once for each endpoint.

Several processes may do this at once, and one may die in between: the outbox takes the id of a
message once. What was not added is added by the next pass.
"""

import threading
from collections.abc import Iterator
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from app.alerts.digests import Receiver, add_digest, due_periods, organization_digest, receivers
from app.config.settings import Settings
from app.reports.digest import Period
from app.storage.database import Database

# Endpoints that are read at once.
BATCH = 500


class Added(NamedTuple):
    """What a pass has added: messages, of so many organizations."""

    messages: int = 0
    organizations: int = 0


def add_digests(
    database: Database, settings: Settings, stop: threading.Event, now: datetime
) -> Added:
    """Add the digests that are due, one organization at a time.

    An organization whose digest fails does not keep the others from theirs.

    Raises:
        Exception: the first failure, after all others were tried.
    """
    messages = organizations = 0
    failure: Exception | None = None
    for period, found in _batches(database, now):
        for tenant_id, some in groupby(found, key=attrgetter("tenant_id")):
            if stop.is_set():
                return Added(messages, organizations)
            try:
                messages += _add(database, settings, period, tenant_id, list(some), now)
                organizations += 1
            except Exception as error:
                failure = failure or error
    if failure:
        raise failure
    return Added(messages, organizations)


def _batches(database: Database, now: datetime) -> Iterator[tuple[Period, list[Receiver]]]:
    """All that wait for a digest; those whose digest fails are not read again in this pass."""
    with database.reading() as connection:
        periods = due_periods(connection, now)
    for period in periods:
        last = None
        while True:
            with database.reading() as connection:
                found = receivers(connection, period, after=last, limit=BATCH)
            if found:
                yield period, found
            if len(found) < BATCH:
                break
            last = found[-1]


def _add(  # noqa: PLR0913, PLR0917 - whose digest, which, and for which endpoints
    database: Database,
    settings: Settings,
    period: Period,
    tenant_id: str,
    to: list[Receiver],
    now: datetime,
) -> int:
    # The numbers are read before, so that no lock is held meanwhile.
    with database.snapshot() as connection:
        made = organization_digest(connection, tenant_id, period, settings, now)
    if not made.is_whole:  # the database was restored from a backup in between, for example
        return 0
    public = settings.public_url
    base_url = None if public is None else str(public)
    return database.write(lambda writing: add_digest(writing, made, to, now, base_url))
