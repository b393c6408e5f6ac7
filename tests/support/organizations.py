"""The list of all organizations, made at a moment."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert as upsert

from app.reports.organizations import PERIODS
from app.storage.database import Database
from app.storage.tables import organization_summaries, organization_summary_state, rollup_state
from jobs.organizations import Pass, summarize_organizations
from tests.support.settings import NOW

COUNTS = [f"{name}_{period}" for period in PERIODS for name in ("tokens", "before")]


def counted(database: Database, at: datetime = NOW) -> None:
    """Say that events were last counted at this moment."""
    finished = sa.update(rollup_state).values(last_finished=at)
    database.write(lambda connection: connection.execute(finished))


def add_row(database: Database, tenant: str) -> None:
    """Add an organization to the list, unless it is there."""
    nothing = dict.fromkeys((*COUNTS, "open_findings"), 0)
    values = {"tenant_id": tenant, "days": "", "weeks": ""} | nothing
    insert = upsert(organization_summaries).values(values).on_conflict_do_nothing()
    database.write(lambda connection: connection.execute(insert))


def make_list(database: Database, at: datetime = NOW, **options: Any) -> Pass:
    """Sum up all organizations, as they are counted at this moment."""
    counted(database, at)
    due = sa.update(organization_summary_state).values(began_at=None)
    database.write(lambda connection: connection.execute(due))
    done = summarize_organizations(database, **options)
    assert done is not None
    return done


def rows(database: Database) -> dict[str, sa.Row[Any]]:
    """The rows of the table, by organization."""
    with database.reading() as connection:
        found = connection.execute(sa.select(organization_summaries)).all()
    return {row.tenant_id: row for row in found}
