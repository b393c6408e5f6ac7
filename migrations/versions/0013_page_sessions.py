"""Sessions of the pages: who is signed in, and what renews and ends it.

Revision ID: 0013
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    postgresql = op.get_bind().dialect.name == "postgresql"
    id_type = sa.Text(collation="C") if postgresql else sa.Text()
    op.create_table(
        "page_sessions",
        # The SHA-256 of the id in the browser's cookie.
        sa.Column("id", id_type, nullable=False),
        # NULL: not chosen yet, or an operator without an own organization.
        sa.Column("tenant_id", id_type),
        sa.Column("subject", id_type, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("organizations", sa.Text),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("renew_at", sa.DateTime(timezone=True)),
        sa.Column("claimed_until", sa.DateTime(timezone=True)),
        sa.Column("issued_at", sa.DateTime(timezone=True)),
        sa.Column("sid", id_type),
        sa.Column("sealed", sa.Text),
        sa.Column("form", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_page_sessions"),
    )
    op.create_index("ix_page_sessions_tenant_id", "page_sessions", ["tenant_id"])


def downgrade() -> None:
    op.drop_table("page_sessions")
