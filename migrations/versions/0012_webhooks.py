"""Webhooks: endpoints, the outbox of messages to them, and the number of a finding's changes.

Revision ID: 0012
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column(
        "findings",
        sa.Column("version", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    )
    create_endpoints()
    create_messages()


def downgrade() -> None:
    op.drop_table("webhook_messages")
    op.drop_table("webhook_endpoints")
    op.drop_column("findings", "version")


def id_type() -> sa.Text:
    return sa.Text(collation="C") if is_postgresql() else sa.Text()


def is_postgresql() -> bool:
    return op.get_bind().dialect.name == "postgresql"


def create_endpoints() -> None:
    op.create_table(
        "webhook_endpoints",
        sa.Column("tenant_id", id_type(), nullable=False),
        sa.Column("id", id_type(), nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("format", sa.Text, nullable=False),
        sa.Column("kinds", sa.Text),
        sa.Column("min_severity", sa.Text, nullable=False),
        sa.Column("cooldown_minutes", sa.Integer, nullable=False),
        sa.Column("quiet_from", sa.Text),
        sa.Column("quiet_to", sa.Text),
        sa.Column("quiet_zone", sa.Text),
        # Which digest it gets: "weekly" or "monthly", or none.
        sa.Column("digest", sa.Text),
        # The secret is derived from this number and SECRET_KEY.
        sa.Column("rotation", sa.Integer, nullable=False, server_default=sa.text("1")),
        sa.Column("rotated_at", MOMENT),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("created_by", id_type(), nullable=False),
        sa.Column("disabled_at", MOMENT),
        sa.Column("disabled_reason", sa.Text),
        sa.Column("turn", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("claimed_until", MOMENT),
        sa.Column("failures", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("paused_until", MOMENT),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_webhook_endpoints"),
        # Each claim changes a row, and no indexed column of it.
        postgresql_with={"fillfactor": 70},
        sqlite_with_rowid=False,
    )


def create_messages() -> None:
    op.create_table(
        "webhook_messages",
        sa.Column("tenant_id", id_type(), nullable=False),
        sa.Column("id", id_type(), nullable=False),
        sa.Column("endpoint_id", id_type(), nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("severity", sa.Text),
        sa.Column("finding_id", id_type()),
        sa.Column("version", sa.BigInteger),
        sa.Column("content", sa.Text),
        sa.Column("finding_status", sa.Text),
        sa.Column("detected_at", MOMENT),
        sa.Column("updated_at", MOMENT),
        sa.Column("resolved_at", MOMENT),
        sa.Column("resolution", sa.Text),
        sa.Column("document", sa.Text),
        sa.Column("body", sa.Text),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("next_at", MOMENT),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("last_status", sa.Integer),
        sa.Column("error", sa.Text),
        sa.Column("done_at", MOMENT),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_webhook_messages"),
    )
    waiting = sa.text("next_at IS NOT NULL")
    op.create_index(
        "ix_webhook_messages_tenant_id",
        "webhook_messages",
        ["tenant_id", "endpoint_id", "next_at"],
        postgresql_where=waiting,
        sqlite_where=waiting,
    )
    op.create_index(
        "ix_webhook_messages_finding_id",
        "webhook_messages",
        ["finding_id", "endpoint_id", "version"],
    )
    op.create_index("ix_webhook_messages_created_at", "webhook_messages", ["created_at"])
