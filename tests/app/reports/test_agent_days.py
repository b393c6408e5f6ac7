"""An agent's tokens on days of a zone: exact where its hours tell, and otherwise in proportion."""

import random
from datetime import date

import sqlalchemy as sa

from app.reports.agent_days import divided, issued_before, mask_before, parts
from app.storage.tables import daily_agent_issuance
from tests.support.settings import TENANT

DAY = date(2026, 4, 1)
ORDINAL = DAY.toordinal()


def at(day, hour):
    return (ORDINAL + day) * 24 + hour


def test_tokens_on_one_side_of_an_hour_are_not_divided():
    mask = 1 << 9 | 1 << 10
    assert [issued_before(7, mask, hour) for hour in (0, 9, 11, 24)] == [0, 0, 7, 7]


def test_tokens_on_both_sides_are_divided_by_active_hours():
    assert issued_before(10, 0b1111, 3) == 7
    assert issued_before(24 * 10**17, mask_before(24), 5) == 5 * 10**17


def test_days_of_a_zone_add_up_to_all_tokens():
    """Each token is on one day of the zone, whatever the zone and the agent's hours."""
    dice = random.Random(7)
    for _ in range(200):
        rows = {
            ORDINAL + day: (max(mask.bit_count(), dice.randrange(1, 500)), mask)
            for day in range(4)
            if (mask := dice.randrange(0, 2**24))
        }
        shift = dice.randrange(24)
        begins = [at(day, shift) for day in range(-1, 5)]
        counts = divided(rows, begins)
        assert sum(counts) == sum(issued for issued, _ in rows.values())
        for count, begin in zip(counts, begins, strict=False):
            active = any(
                mask >> hour & 1 and begin <= ordinal * 24 + hour < begin + 24
                for ordinal, (_, mask) in rows.items()
                for hour in range(24)
            )
            assert bool(count) == active


def test_a_skipped_day_has_no_tokens():
    assert divided({ORDINAL: (5, 1 << 10)}, [at(0, 0), at(0, 10), at(0, 10), at(1, 0)]) == [0, 0, 5]


def test_the_database_divides_alike(database):
    """SQL divides an agent's day as Python does, also where a product would be too large."""
    dice = random.Random(11)
    rows = []
    for number in range(60):
        mask = dice.randrange(1, 2**24)
        issued = dice.choice((mask.bit_count(), 1000 + number, 2**63 - 1 - number))
        row = {"tenant_id": TENANT, "date": DAY, "agent_id": f"{number:02}"}
        rows.append(row | {"issued": issued, "hours": mask})
    database.write(lambda connection: connection.execute(sa.insert(daily_agent_issuance), rows))
    row = daily_agent_issuance.c
    for begin, end in ((0, 24), (0, 7), (7, 24), (5, 13), (9, 9)):
        masked = sa.select(
            *(row.agent_id, row.issued, row.hours),
            sa.literal(mask_before(begin)).label("before_begin"),
            sa.literal(mask_before(end)).label("before_end"),
        ).subquery("masked")
        with database.reading() as connection:
            found = dict(connection.execute(parts(masked)).all())
        assert found == {
            one["agent_id"]: issued_before(one["issued"], one["hours"], end)
            - issued_before(one["issued"], one["hours"], begin)
            for one in rows
        }
