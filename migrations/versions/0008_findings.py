"""Findings, what is usual, the claim of detection, and the settings of organizations.

Revision ID: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
NOTHING = sa.text("0")


def upgrade() -> None:
    op.add_column("agents", sa.Column("token_lifetime", sa.Integer))
    create_findings()
    create_usual()
    create_detection_state()
    op.create_table(
        "organization_settings",
        sa.Column("tenant_id", id_type(), nullable=False),
        sa.Column("days_off", sa.Text),
        sa.Column("price", sa.Text),
        sa.Column("token_lifetime", sa.Integer),
        sa.Column("changed_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", name="pk_organization_settings"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    for name in ("organization_settings", "detection_state", "usual", "findings"):
        op.drop_table(name)
    op.drop_column("agents", "token_lifetime")


def id_type() -> sa.Text:
    return sa.Text(collation="C") if is_postgresql() else sa.Text()


def is_postgresql() -> bool:
    return op.get_bind().dialect.name == "postgresql"


def create_findings() -> None:
    op.create_table(
        "findings",
        sa.Column("tenant_id", id_type(), nullable=False),
        sa.Column("id", id_type(), nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("severity", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("agent_id", id_type()),
        sa.Column("begins_at", MOMENT, nullable=False),
        sa.Column("ends_at", MOMENT, nullable=False),
        sa.Column("opened_at", MOMENT, nullable=False),
        sa.Column("detected_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.Column("resolved_at", MOMENT),
        sa.Column("resolution", sa.Text),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("acknowledged_at", MOMENT),
        sa.Column("acknowledged_by", id_type()),
        sa.Column("acknowledged_severity", sa.Text),
        sa.Column("note", sa.Text),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_findings"),
        # An open finding changes often while it lasts, and its indexed columns do not.
        postgresql_with={"fillfactor": 70},
        sqlite_with_rowid=False,
    )
    order = ["tenant_id", "status", "opened_at", "id"]
    op.create_index("ix_findings_tenant_id", "findings", order)


def create_usual() -> None:
    op.create_table(
        "usual",
        sa.Column("tenant_id", id_type(), nullable=False),
        sa.Column("judged_through", sa.Date),
        sa.Column("changed_from", sa.Date),
        sa.Column("due_at", MOMENT, nullable=False),
        sa.Column("delay_seconds", sa.Integer, nullable=False),
        sa.Column("delays", sa.Text, nullable=False),
        sa.Column("usuals", sa.Text, nullable=False),
        sa.Column("states", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", name="pk_usual"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_usual_due_at", "usual", ["due_at"])


def create_detection_state() -> None:
    """Without a row, all events are new to detection. So an upgrade notes the counted ones."""
    op.create_table(
        "detection_state",
        sa.Column("id", sa.SmallInteger, nullable=False, autoincrement=False),
        sa.Column("turn", sa.BigInteger, nullable=False, server_default=NOTHING),
        sa.Column("claimed_until", MOMENT),
        sa.Column("noted_upto", sa.BigInteger, nullable=False, server_default=NOTHING),
        sa.Column("noted_correction", sa.BigInteger, nullable=False, server_default=NOTHING),
        sa.Column("measured_upto", sa.BigInteger, nullable=False, server_default=NOTHING),
        sa.Column("measured_at", MOMENT),
        sa.Column("last_finished", MOMENT),
        sa.PrimaryKeyConstraint("id", name="pk_detection_state"),
    )
    op.execute("""
        INSERT INTO detection_state (id, noted_upto, noted_correction, measured_upto)
        SELECT 1, counted_upto, corrections, counted_upto
        FROM rollup_state WHERE counted_upto > 0
    """)
