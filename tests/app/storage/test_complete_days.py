"""Complete days, on both databases and under the tenant guard."""

from datetime import date

import pytest
import sqlalchemy as sa

from app.storage.complete_days import incomplete_days
from app.storage.tables import daily_agent_issuance, daily_issuance, hourly_issuance

DAYS = [date(2026, 4, number) for number in (1, 2, 3, 4)]
HOUR, AGENT = {"hour": 9}, {"agent_id": "a", "hours": 512}


@pytest.mark.parametrize(
    ("table", "one", "other"),
    [
        (hourly_issuance, HOUR, HOUR | {"hour": 23}),
        (daily_agent_issuance, AGENT, AGENT | {"agent_id": "b"}),
    ],
)
def test_a_day_is_complete_when_its_parts_sum_up(database, table, one, other):
    """A day without parts, or with too few, is incomplete; another tenant's parts do not help."""

    def fill(connection):
        whole = [{"tenant_id": t, "date": day, "issued": 5} for t in "tu" for day in DAYS]
        connection.execute(sa.insert(daily_issuance), whole)
        parts = [
            {"tenant_id": "t", "date": DAYS[0], "issued": 5} | one,
            {"tenant_id": "t", "date": DAYS[1], "issued": 2} | one,
            {"tenant_id": "t", "date": DAYS[1], "issued": 3} | other,
            {"tenant_id": "t", "date": DAYS[2], "issued": 4} | one,
            *({"tenant_id": "u", "date": day, "issued": 5} | one for day in DAYS),
        ]
        connection.execute(sa.insert(table), parts)

    database.write(fill)
    with database.reading() as connection:
        found = connection.execute(incomplete_days(table, DAYS[0], DAYS[3])).all()
        assert sorted(found) == [("t", DAYS[2]), ("t", DAYS[3])]
    tenant = sa.bindparam("tenant_id", type_=sa.Text)
    one_tenant = incomplete_days(table, DAYS[0], DAYS[2], tenant)
    for name, days in {"t": [DAYS[2]], "u": []}.items():
        with database.reading_for(name) as connection:
            found = connection.execute(one_tenant, {"tenant_id": name}).all()
        assert [row.date for row in found] == days
