"""What runs did, what rebuilds corrected, what was purged.

Revision ID: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    postgresql = op.get_bind().dialect.name == "postgresql"
    moment = sa.DateTime(timezone=True)
    id_type = sa.Text(collation="C") if postgresql else sa.Text()
    identity = (
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True)
        if postgresql
        else sa.Column("id", sa.Integer, primary_key=True)
    )
    op.create_table(
        "rollup_runs",
        identity,
        sa.Column("started_at", moment, nullable=False),
        sa.Column("finished_at", moment),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("events", sa.BigInteger, nullable=False),
        sa.Column("buckets", sa.BigInteger, nullable=False),
        sa.Column("watermark_from", sa.BigInteger, nullable=False),
        sa.Column("watermark_to", sa.BigInteger, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", sa.BigInteger, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "rollup_corrections",
        sa.Column("tenant_id", id_type, nullable=False),
        sa.Column("correction", sa.BigInteger, nullable=False),
        sa.Column("table_name", sa.Text, nullable=False),
        sa.Column("month", sa.Date, nullable=False),
        sa.Column("old_total", sa.BigInteger, nullable=False),
        sa.Column("new_total", sa.BigInteger, nullable=False),
        sa.Column("corrected_at", moment, nullable=False),
        sa.Column("corrected_by", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint(
            "tenant_id", "correction", "table_name", "month", name="pk_rollup_corrections"
        ),
    )
    op.create_table(
        "purged_months",
        sa.Column("month", sa.Date, nullable=False),
        sa.Column("events", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("month", name="pk_purged_months"),
    )
    op.add_column(
        "rollup_state",
        sa.Column("corrections", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    )


def downgrade() -> None:
    op.drop_column("rollup_state", "corrections")
    op.drop_table("purged_months")
    op.drop_table("rollup_corrections")
    op.drop_table("rollup_runs")
