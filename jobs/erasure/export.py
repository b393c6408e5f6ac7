"""Export of an organization: every row of it, as NDJSON (``flask organizations export``)."""

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from app.storage.tables import api_keys, metadata, page_sessions

# Rows that are fetched at once.
STREAMED = 1000
TENANT = "tenant_id"
# Who reads an export must not be able to use the keys and the sessions in it.
SECRET = {api_keys.c.sha256, page_sessions.c.id, page_sessions.c.sealed, page_sessions.c.form}


def exported_rows(connection: Connection, tenant_id: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row of an organization with the name of its table, ordered by table and key.

    Args:
        connection: in a snapshot, because the rows are read as a stream.
    """
    for table in sorted(metadata.tables.values(), key=lambda table: str(table.name)):
        if TENANT not in table.c:
            continue
        columns = [column for column in table.c if column not in SECRET]
        key = list(table.primary_key) or columns
        statement = sa.select(*columns).where(table.c[TENANT] == tenant_id).order_by(*key)
        options = {"yield_per": STREAMED}  # with a server-side cursor
        with connection.execute(statement, execution_options=options) as found:
            for row in found.mappings():
                yield str(table.name), dict(row)
