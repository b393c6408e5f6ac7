"""The organizations of clients whose tokens name none.

Revision ID: 0014
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    postgresql = op.get_bind().dialect.name == "postgresql"
    id_type = sa.Text(collation="C") if postgresql else sa.Text()
    op.create_table(
        "client_organizations",
        sa.Column("client_id", id_type, nullable=False),
        sa.Column("tenant_id", id_type, nullable=False),
        # Whether also the tokens that people got by the client are of the organization.
        sa.Column("people", sa.Boolean, nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("client_id", name="pk_client_organizations"),
    )
    op.create_index("ix_client_organizations_tenant_id", "client_organizations", ["tenant_id"])


def downgrade() -> None:
    op.drop_table("client_organizations")
