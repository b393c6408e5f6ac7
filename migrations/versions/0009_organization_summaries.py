"""The list of all organizations with their tokens, and how far it is made.

Revision ID: 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
PERIODS = ("7d", "28d", "13w")


def upgrade() -> None:
    op.create_table(
        "organization_summaries",
        sa.Column("tenant_id", id_type(), nullable=False),
        *(counted(f"tokens_{period}") for period in PERIODS),
        *(counted(f"before_{period}") for period in PERIODS),
        *(sa.Column(f"agents_{period}", sa.BigInteger) for period in PERIODS),
        sa.Column("agents_through", sa.Date),
        sa.Column("last_day", sa.Date),
        counted("open_findings"),
        sa.Column("days", sa.Text, nullable=False),
        sa.Column("weeks", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", name="pk_organization_summaries"),
        sqlite_with_rowid=False,
    )
    # Every read of the list goes through all rows, so it reads this narrow copy.
    op.create_index(
        "ix_organization_summaries_tenant_id",
        "organization_summaries",
        [
            "tenant_id",
            *(f"{name}_{period}" for name in ("tokens", "before", "agents") for period in PERIODS),
            *("last_day", "open_findings"),
        ],
    )
    op.create_table(
        "organization_summary_state",
        sa.Column("id", sa.SmallInteger, nullable=False, autoincrement=False),
        sa.Column("began_at", MOMENT),
        sa.Column("after", id_type()),
        sa.Column("counting", MOMENT),
        sa.Column("counted_at", MOMENT),
        sa.Column("last_finished", MOMENT),
        sa.PrimaryKeyConstraint("id", name="pk_organization_summary_state"),
    )


def downgrade() -> None:
    op.drop_table("organization_summary_state")
    op.drop_table("organization_summaries")


def counted(name: str) -> sa.Column:
    return sa.Column(name, sa.BigInteger, nullable=False)


def id_type() -> sa.Text:
    return sa.Text(collation="C") if op.get_bind().dialect.name == "postgresql" else sa.Text()
