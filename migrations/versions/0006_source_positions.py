"""How far followed files and pulled logs are read.

Revision ID: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

COUNTS = ("version", "accepted", "duplicates", "skipped", "refused")


def upgrade() -> None:
    postgresql = op.get_bind().dialect.name == "postgresql"
    id_type = sa.Text(collation="C") if postgresql else sa.Text()
    moment = sa.DateTime(timezone=True)
    counts = [
        sa.Column(name, sa.BigInteger, nullable=False, server_default=sa.text("0"))
        for name in COUNTS
    ]
    op.create_table(
        "source_positions",
        sa.Column("source", id_type, nullable=False),
        sa.Column("place", id_type, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("position", sa.Text, nullable=False),
        sa.Column("claimed_at", moment),
        sa.Column("read_at", moment),
        sa.Column("newest_at", moment),
        *counts,
        sa.Column("error", sa.Text),
        sa.Column("failed_at", moment),
        sa.PrimaryKeyConstraint("source", "place", name="pk_source_positions"),
        # Each batch changes its row. With room on the page, no index changes with it.
        postgresql_with={"fillfactor": 70},
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("source_positions")
