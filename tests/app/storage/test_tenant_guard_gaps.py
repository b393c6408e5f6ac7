"""The fence, where a table hides or a statement does not look like a read of one."""

import re

import pytest
import sqlalchemy as sa
from sqlalchemy import select

from app.config.settings import ROOT
from app.storage import tenant_guard
from app.storage.tables import daily_issuance, issuance_events, monthly_agent_issuance, rollup_state
from app.storage.tenant_guard import TenantGuardError
from tests.support.settings import NOW, TENANT

DAY = daily_issuance.c
OURS = DAY.tenant_id == TENANT
CLOSED = select(DAY.issued).where(OURS)
STATE = select(rollup_state.c.id)
ALIAS = daily_issuance.alias("days")
ROW = {"tenant_id": TENANT, "date": NOW.date(), "issued": 1}
NESTED = monthly_agent_issuance.join(issuance_events, sa.true())

SOURCES = {
    "a join within a join": CLOSED.join(NESTED, sa.true()),
    "an alias of an alias": select(ALIAS.alias("again").c.issued),
    "a table sample of an alias": select(ALIAS.tablesample(100).c.issued),
    "a table that says no tenant": select(sa.table("daily_issuance", sa.column("issued"))),
    "a table that hides its tenant": select(
        sa.Table("daily_issuance", sa.MetaData(), sa.Column("issued", sa.Integer)).c.issued
    ),
    "a literal column": select(sa.literal_column("(SELECT max(issued) FROM daily_issuance)")),
    "a suffix": CLOSED.suffix_with("UNION ALL SELECT issued FROM daily_issuance"),
    "a prefix": CLOSED.prefix_with("issued FROM daily_issuance UNION ALL SELECT"),
}
WRITES = {
    "an insert": sa.insert(daily_issuance).values(ROW).returning(DAY.issued).cte(),
    "an update": sa.update(daily_issuance).values(issued=0).returning(DAY.issued).cte(),
    "a delete": sa.delete(daily_issuance).returning(DAY.issued).cte(),
}


@pytest.mark.parametrize("statement", SOURCES.values(), ids=SOURCES)
def test_a_table_that_hides_from_its_predicate_is_refused(statement):
    with pytest.raises(TenantGuardError):
        tenant_guard.check(statement, {}, TENANT)


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_write_within_a_read_is_refused(write):
    for statement in (select(write.c.issued), STATE.add_cte(write)):
        with pytest.raises(TenantGuardError):
            tenant_guard.check(statement, {}, TENANT)


def test_text_given_to_the_driver_is_refused(database):
    with database.reading_for(TENANT) as connection, pytest.raises(TenantGuardError):
        connection.exec_driver_sql("SELECT issued FROM daily_issuance")


def test_a_read_with_several_sets_of_parameters_is_refused(database):
    statement = select(DAY.issued).where(DAY.tenant_id == sa.bindparam("tenant", TENANT))
    with database.reading_for(TENANT) as connection, pytest.raises(TenantGuardError):
        connection.execute(statement, [{"tenant": "org-b"}, {"tenant": "org-b"}])


def test_no_view_takes_a_connection_without_the_fence():
    for view in sorted((ROOT / "app/web").rglob("*.py")):
        assert re.findall(r"\.(reading|snapshot|engine|read_then_write)\b", view.read_text()) == []
