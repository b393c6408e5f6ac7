"""Budgets: limits of tokens for a day or a month.

Revision ID: 0011
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    postgresql = op.get_bind().dialect.name == "postgresql"
    id_type = sa.Text(collation="C") if postgresql else sa.Text()
    op.create_table(
        "budgets",
        sa.Column("tenant_id", id_type, nullable=False),
        # Empty: the whole organization.
        sa.Column("agent_id", id_type, nullable=False),
        sa.Column("period", id_type, nullable=False),
        sa.Column("tokens", sa.BigInteger, nullable=False),
        sa.Column("set_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("set_by", id_type, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "agent_id", "period", name="pk_budgets"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("budgets")
