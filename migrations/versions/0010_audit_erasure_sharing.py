"""The audit log, the erasures that have begun, and share links.

Revision ID: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    postgresql = op.get_bind().dialect.name == "postgresql"
    id_type = sa.Text(collation="C") if postgresql else sa.Text()
    identity = (
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False)
        if postgresql
        else sa.Column("id", sa.Integer, nullable=False)
    )
    op.create_table(
        "audit_log",
        identity,
        # NULL: a change of no single organization.
        sa.Column("tenant_id", id_type),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", id_type, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("subject", id_type, nullable=False),
        sa.Column("details", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_audit_log"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_audit_log_tenant_id", "audit_log", ["tenant_id"])
    op.create_table(
        "erasures",
        sa.Column("tenant_id", id_type, nullable=False),
        # Empty: the whole organization.
        sa.Column("agent_id", id_type, nullable=False),
        sa.Column("replacement", id_type),
        sa.Column("begun_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "agent_id", name="pk_erasures"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "share_links",
        sa.Column("id", id_type, nullable=False),
        sa.Column("tenant_id", id_type, nullable=False),
        sa.Column("views", sa.Text, nullable=False),
        sa.Column("days", sa.Integer, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_by", id_type, nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
        sa.Column("opened", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("last_opened_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="pk_share_links"),
    )
    op.create_index("ix_share_links_tenant_id", "share_links", ["tenant_id"])


def downgrade() -> None:
    op.drop_table("share_links")
    op.drop_table("erasures")
    op.drop_table("audit_log")
