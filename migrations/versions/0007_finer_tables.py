"""Tokens by hour, tokens and hours by agent and day, and the week of all months together.

``dow_hour_total`` is filled here, from its months. ``flask rollup backfill`` fills the others from
the raw events: those with ids above ``backfilled``, up to ``backfill_end``.

A job of the previous version would count into three tables of six. So the columns that it reads
are renamed, and each of its transactions fails.

Revision ID: 0007
"""

from datetime import date

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

RENAMED = {"watermark": "counted_upto", "last_started": "last_tick"}
JOURNAL = ("tenant_id", "correction", "table_name", "month")
JOURNAL_VALUES = ("old_total", "new_total", "corrected_at", "corrected_by")


def upgrade() -> None:
    if is_postgresql():
        # Runs and rebuilds wait until the commit, and reads go on. It is taken first: a run that
        # waits for it holds nothing that the renaming below waits for.
        op.execute("LOCK TABLE rollup_state IN EXCLUSIVE MODE")
    create_tables()
    fill_dow_hour_total()
    let_months_of_corrections_be_null()
    note_what_to_backfill()
    for old, new in RENAMED.items():
        op.alter_column("rollup_state", old, new_column_name=new)


def downgrade() -> None:
    if is_postgresql():
        op.execute("LOCK TABLE rollup_state IN EXCLUSIVE MODE")
    for old, new in RENAMED.items():
        op.alter_column("rollup_state", new, new_column_name=old)
    for name in ("agents_from", "hours_from", "backfill_end", "backfilled"):
        op.drop_column("rollup_state", name)
    require_months_of_corrections()
    for name in ("dow_hour_total", "daily_agent_issuance", "hourly_issuance"):
        op.drop_table(name)


def is_postgresql() -> bool:
    return op.get_bind().dialect.name == "postgresql"


def id_type() -> sa.Text:
    return sa.Text(collation="C") if is_postgresql() else sa.Text()


def create_tables() -> None:
    create_summary(
        "hourly_issuance",
        sa.Column("date", sa.Date, nullable=False),
        sa.Column("hour", sa.SmallInteger, nullable=False, autoincrement=False),
        check("hourly_issuance", "hour", "hour BETWEEN 0 AND 23"),
    )
    # SQLite stores any type in any column, so its rules also ask for the type.
    mask = "hours BETWEEN 0 AND 16777215"
    if not is_postgresql():
        mask += " AND typeof(hours) = 'integer'"
    create_summary(
        "daily_agent_issuance",
        sa.Column("date", sa.Date, nullable=False),
        sa.Column("agent_id", id_type(), nullable=False),
        value=sa.Column("hours", sa.Integer, nullable=False),
        rule=check("daily_agent_issuance", "hours", mask),
    )
    create_summary(
        "dow_hour_total",
        sa.Column("dow", sa.SmallInteger, nullable=False, autoincrement=False),
        sa.Column("hour", sa.SmallInteger, nullable=False, autoincrement=False),
        check("dow_hour_total", "dow", "dow BETWEEN 0 AND 6"),
        check("dow_hour_total", "hour", "hour BETWEEN 0 AND 23"),
    )


def create_summary(
    name: str,
    *parts: sa.Column | sa.CheckConstraint,
    value: sa.Column | None = None,
    rule: sa.CheckConstraint | None = None,
) -> None:
    """A summary table as in 0001: keyed by tenant, then ``parts``; counts are never negative."""
    keys = [part.name for part in parts if isinstance(part, sa.Column)]
    issued = "issued >= 0" if is_postgresql() else "issued >= 0 AND typeof(issued) = 'integer'"
    op.create_table(
        name,
        sa.Column("tenant_id", id_type(), nullable=False),
        *parts,
        sa.Column("issued", sa.BigInteger, nullable=False),
        *(one for one in (value, rule) if one is not None),
        sa.PrimaryKeyConstraint("tenant_id", *keys, name=f"pk_{name}"),
        check(name, "issued", issued),
        postgresql_with={"fillfactor": 70},
        sqlite_with_rowid=False,
    )


def check(table: str, name: str, rule: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(sa.text(rule), name=op.f(f"ck_{table}_{name}"))


def fill_dow_hour_total() -> None:
    op.execute("""
        INSERT INTO dow_hour_total (tenant_id, dow, hour, issued)
        SELECT tenant_id, dow, hour, CAST(sum(issued) AS BIGINT) FROM dow_hour_activity
        GROUP BY tenant_id, dow, hour
    """)


def let_months_of_corrections_be_null() -> None:
    """A correction of ``dow_hour_total`` has no month, so the month cannot be part of the key."""
    if is_postgresql():
        op.drop_constraint("pk_rollup_corrections", "rollup_corrections", type_="primary")
        op.alter_column("rollup_corrections", "month", nullable=True)
    else:
        recreate_corrections(sa.Column("month", sa.Date))
    op.create_index("ix_rollup_corrections_tenant_id", "rollup_corrections", JOURNAL, unique=True)
    # A downgrade has kept these with a month.
    op.execute("UPDATE rollup_corrections SET month = NULL WHERE table_name = 'dow_hour_total'")


def require_months_of_corrections() -> None:
    op.execute("UPDATE rollup_corrections SET month = '1970-01-01' WHERE month IS NULL")
    op.drop_index("ix_rollup_corrections_tenant_id", "rollup_corrections")
    if is_postgresql():
        op.alter_column("rollup_corrections", "month", nullable=False)
        op.create_primary_key("pk_rollup_corrections", "rollup_corrections", JOURNAL)
    else:
        key = sa.PrimaryKeyConstraint(*JOURNAL, name="pk_rollup_corrections")
        recreate_corrections(sa.Column("month", sa.Date, nullable=False), key)


def recreate_corrections(month: sa.Column, *key: sa.PrimaryKeyConstraint) -> None:
    """SQLite cannot change a column or a key."""
    columns = ", ".join([*JOURNAL, *JOURNAL_VALUES])
    op.rename_table("rollup_corrections", "rollup_corrections_old")
    op.create_table(
        "rollup_corrections",
        sa.Column("tenant_id", sa.Text, nullable=False),
        sa.Column("correction", sa.BigInteger, nullable=False),
        sa.Column("table_name", sa.Text, nullable=False),
        month,
        sa.Column("old_total", sa.BigInteger, nullable=False),
        sa.Column("new_total", sa.BigInteger, nullable=False),
        sa.Column("corrected_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("corrected_by", sa.Text, nullable=False),
        *key,
    )
    op.execute(
        f"INSERT INTO rollup_corrections ({columns}) SELECT {columns} FROM rollup_corrections_old"  # noqa: S608 - names from above
    )
    op.drop_table("rollup_corrections_old")


def note_what_to_backfill() -> None:
    """Note the counted events that are left; those before the oldest one were purged.

    Days of purged months may stay incomplete, because events of theirs are gone.
    """
    for name in ("backfilled", "backfill_end"):
        zero = sa.text("0")
        op.add_column(
            "rollup_state", sa.Column(name, sa.BigInteger, nullable=False, server_default=zero)
        )
    for name in ("hours_from", "agents_from"):
        op.add_column("rollup_state", sa.Column(name, sa.Date))
    connection = op.get_bind()
    columns = map(sa.column, ("watermark", "backfilled", "backfill_end"))
    complete = [sa.column(name, sa.Date) for name in ("hours_from", "agents_from")]
    state = sa.table("rollup_state", *columns, *complete)
    watermark = connection.scalar(sa.select(state.c.watermark))
    if watermark is None:  # the state row is missing, which every command reports
        return
    event = sa.table("issuance_events", sa.column("id"))
    oldest = connection.scalar(sa.select(sa.func.min(event.c.id)))
    before = watermark if oldest is None else min(oldest - 1, watermark)
    purged = sa.table("purged_months", sa.column("month", sa.Date))
    last = connection.scalar(sa.select(sa.func.max(purged.c.month)))
    first = last and month_after(last)
    connection.execute(
        sa.update(state).values(
            backfilled=before, backfill_end=watermark, hours_from=first, agents_from=first
        )
    )


def month_after(month: date) -> date:
    if (month.year, month.month) == (9999, 12):
        return date.max
    return date(month.year + month.month // 12, month.month % 12 + 1, 1)
