"""Fixtures: two organizations with something in every table, counted, purged and pending."""

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from app.storage.tables import issuance_events, metadata
from jobs.counting.tables import SUMMARY_TABLES
from jobs.recount.verify import verification
from jobs.retention import purge_events
from tests.jobs.test_copy import rows_of_others

COUNTED = {issuance_events, *(summary.table for summary in SUMMARY_TABLES)}
OF_TENANTS = [table for table in metadata.sorted_tables if "tenant_id" in table.c]
OLD, OTHER = "agent \N{GREEK CAPITAL LETTER OMEGA}\"%_\\'1", "other"


@pytest.fixture
def filled(database, issue, roll_up):
    """Two organizations: raw events of March are purged in part, some of May are pending."""
    for tenant in ("t", "other"):
        for agent in (OLD, OTHER):
            for day in ("2026-03-01T01", "2026-03-31T23", "2026-04-01T00", "2026-04-02T05"):
                issue(f"{day}:00:00Z", 2, tenant=tenant, agent=agent)
    roll_up()
    march = issuance_events.c.issued_at < datetime(2026, 3, 2, tzinfo=UTC)
    aged = sa.update(issuance_events).where(march)
    long_ago = datetime.now(UTC) - timedelta(days=400)
    database.write(lambda connection: connection.execute(aged.values(received_at=long_ago)))
    assert purge_events(database, retention_days=300).events == 8
    fill_others(database)
    for tenant in ("t", "other"):
        issue("2026-05-01T00:00:00Z", 3, tenant=tenant, agent=OLD)
    return database


def fill_others(database):
    """A row of each organization in every table that no run fills."""
    rows = rows_of_others()
    for table in OF_TENANTS:
        if table not in COUNTED:
            for tenant in ("t", "other"):
                row = rows[str(table.name)] | {"tenant_id": tenant}
                name = next((name for name in ("id", "client_id") if name in row), None)
                if name is not None and "tenant_id" not in table.primary_key.columns:
                    row[name] = f"{tenant}-{row[name]}"
                insert = sa.insert(table).inline().values(row)
                database.write(lambda connection, insert=insert: connection.execute(insert))


def contents(database, tenant):
    """Every row of an organization, by table."""
    with database.reading() as connection:
        return {
            table.name: sorted(
                map(tuple, connection.execute(sa.select(table).where(table.c.tenant_id == tenant))),
                key=repr,
            )
            for table in OF_TENANTS
        }


@contextmanager
def dying(database, statement):
    """The process dies after so many statements that are to write."""
    seen = 0

    def die(_connection, _cursor, _text, _parameters, context, _many):
        nonlocal seen
        seen += context.execution_options["begin"] == "write"
        if seen >= statement:
            raise ConnectionError("the process died")

    event.listen(database.engine, "after_cursor_execute", die)
    try:
        yield
    finally:
        event.remove(database.engine, "after_cursor_execute", die)


def drift(database):
    with verification(database) as found:
        return list(found.drift)
