"""Events, the three rollups and the job's state row.

Revision ID: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Bad rows are refused where they are written, whoever writes them: an id the API could
# not show or a time no bucket can hold must never reach the job, which serves everybody.
PG_ID = r"char_length({0}) BETWEEN 1 AND 255 AND {0} !~ '[\u0001-\u001f\u007f-\u009f]'"
PG_TIME = "{0} >= '1970-01-01 00:00:00+00' AND {0} < '10000-01-01 00:00:00+00'"
# SQLite's length() stops at a NUL, hence instr(); a modifier, even an idle one, is what makes
# datetime() notice 31 February; IS and not =, since a CHECK lets NULL pass.
SQLITE_ID = (
    "typeof({0}) = 'text' AND length({0}) BETWEEN 1 AND 255 AND instr({0}, char(0)) = 0 AND"
    " {0} NOT GLOB ('*[' || char(1) || '-' || char(31) || char(127) || '-' || char(159) || ']*')"
)
SQLITE_TIME = (
    "typeof({0}) = 'text' AND {0} >= '1970-01-01'"
    " AND datetime(substr({0}, 1, 19), '+0 days') IS substr({0}, 1, 19)"
    " AND (length({0}) = 19 OR substr({0}, 20) GLOB '.[0-9][0-9][0-9][0-9][0-9][0-9]')"
)


def upgrade() -> None:
    if is_postgresql():
        require_utf8()
        create_events_postgresql()
    else:
        create_events_sqlite()
    create_rollups()
    create_state()


def downgrade() -> None:
    for table in (
        "rollup_state",
        "monthly_agent_issuance",
        "dow_hour_activity",
        "daily_issuance",
        "issuance_events",
    ):
        op.drop_table(table)


def is_postgresql() -> bool:
    return op.get_bind().dialect.name == "postgresql"


def require_utf8() -> None:
    encoding = op.get_bind().scalar(sa.text("SHOW server_encoding"))
    if encoding != "UTF8":
        raise RuntimeError(f"the database's encoding is {encoding}; ids need UTF8")


def id_type() -> sa.Text:
    return sa.Text(collation="C") if is_postgresql() else sa.Text()


def checks(ids: str, times: str) -> list[sa.CheckConstraint]:
    rules = {name: ids.format(name) for name in ("tenant_id", "event_id", "agent_id")}
    rules |= {name: times.format(name) for name in ("issued_at", "received_at")}
    return [check("issuance_events", name, rule) for name, rule in rules.items()]


def check(table: str, name: str, rule: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(sa.text(rule), name=op.f(f"ck_{table}_{name}"))


def create_events_postgresql() -> None:
    now = sa.text("now()")
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "issuance_events",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True, cache=1), nullable=False),
        sa.Column("tenant_id", id_type(), nullable=False),
        sa.Column("event_id", id_type(), nullable=False),
        sa.Column("agent_id", id_type(), nullable=False),
        sa.Column("issued_at", moment, nullable=False),
        sa.Column("received_at", moment, nullable=False, server_default=now),
        sa.PrimaryKeyConstraint("tenant_id", "event_id", name="pk_issuance_events"),
        *checks(PG_ID, PG_TIME),
    )
    op.create_index("ix_issuance_events_id", "issuance_events", ["id"])


def create_events_sqlite() -> None:
    now = sa.text("(strftime('%Y-%m-%d %H:%M:%f000', 'now'))")
    op.create_table(
        "issuance_events",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("agent_id", sa.Text, nullable=False),
        sa.Column("issued_at", sa.DateTime, nullable=False),
        sa.Column("received_at", sa.DateTime, nullable=False, server_default=now),
        sa.UniqueConstraint("tenant_id", "event_id", name="uq_issuance_events_tenant_id"),
        *checks(SQLITE_ID, SQLITE_TIME),
        # Without it SQLite gives the newest id out again once its row is deleted.
        sqlite_autoincrement=True,
    )


def create_rollups() -> None:
    create_rollup("daily_issuance", sa.Column("date", sa.Date, nullable=False))
    create_rollup(
        "dow_hour_activity",
        sa.Column("month", sa.Date, nullable=False),
        sa.Column("dow", sa.SmallInteger, nullable=False, autoincrement=False),
        sa.Column("hour", sa.SmallInteger, nullable=False, autoincrement=False),
        check("dow_hour_activity", "dow", "dow BETWEEN 0 AND 6"),
        check("dow_hour_activity", "hour", "hour BETWEEN 0 AND 23"),
    )
    create_rollup(
        "monthly_agent_issuance",
        sa.Column("month", sa.Date, nullable=False),
        sa.Column("agent_id", id_type(), nullable=False),
    )


def create_rollup(name: str, *parts: sa.Column | sa.CheckConstraint) -> None:
    """A summary table: keyed by tenant, then ``parts``; counts are 64 bits and never negative."""
    keys = [part.name for part in parts if isinstance(part, sa.Column)]
    # SQLite turns an integer that overflows into a float, which typeof() refuses.
    rule = "issued >= 0" if is_postgresql() else "issued >= 0 AND typeof(issued) = 'integer'"
    op.create_table(
        name,
        sa.Column("tenant_id", id_type(), nullable=False),
        *parts,
        sa.Column("issued", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", *keys, name=f"pk_{name}"),
        check(name, "issued", rule),
        # Room on every page for the next version of a counted row, so that adding to it
        # touches no index.
        postgresql_with={"fillfactor": 70},
        sqlite_with_rowid=False,
    )


def create_state() -> None:
    moment = sa.DateTime(timezone=True)
    state = op.create_table(
        "rollup_state",
        sa.Column("id", sa.SmallInteger, nullable=False, autoincrement=False),
        sa.Column("watermark", sa.BigInteger, nullable=False),
        sa.Column("candidate", sa.BigInteger),
        sa.Column("writers", sa.Text),
        sa.Column("last_started", moment),
        sa.Column("last_finished", moment),
        sa.PrimaryKeyConstraint("id", name="pk_rollup_state"),
        check("rollup_state", "id", "id = 1"),
    )
    op.execute(state.insert().values(id=1, watermark=0))
