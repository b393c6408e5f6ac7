"""Keys of callers that have no tokens.

Revision ID: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# As for agents: a text that could not be shown, or an instant that could not be read, is refused.
PG_TEXT = r"char_length({0}) BETWEEN 1 AND 255 AND {0} !~ '[\u0001-\u001f\u007f-\u009f]'"
PG_TIME = "{0} >= '1970-01-01 00:00:00+00' AND {0} < '10000-01-01 00:00:00+00'"
SQLITE_TEXT = (
    "typeof({0}) = 'text' AND length({0}) BETWEEN 1 AND 255 AND instr({0}, char(0)) = 0 AND"
    " {0} NOT GLOB ('*[' || char(1) || '-' || char(31) || char(127) || '-' || char(159) || ']*')"
)
SQLITE_TIME = (
    "typeof({0}) = 'text' AND {0} >= '1970-01-01'"
    " AND datetime(substr({0}, 1, 19), '+0 days') IS substr({0}, 1, 19)"
    " AND substr({0}, 20) GLOB '.[0-9][0-9][0-9][0-9][0-9][0-9]'"
)
# A hash in hexadecimal.
HASH = "length({0}) = 64"


def upgrade() -> None:
    postgresql = op.get_bind().dialect.name == "postgresql"
    id_type = sa.Text(collation="C") if postgresql else sa.Text()
    time_type = sa.DateTime(timezone=True)
    text, time = (PG_TEXT, PG_TIME) if postgresql else (SQLITE_TEXT, SQLITE_TIME)
    op.create_table(
        "api_keys",
        sa.Column("id", id_type, nullable=False),
        # NULL: a key of no single organization.
        sa.Column("tenant_id", id_type),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("note", sa.Text),
        sa.Column("created_at", time_type, nullable=False),
        sa.Column("expires_at", time_type),
        sa.Column("revoked_at", time_type),
        sa.Column("last_used", sa.Date),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        check("id", text),
        check("tenant_id", f"tenant_id IS NULL OR ({text})"),
        check("sha256", HASH),
        check("scopes", text),
        check("note", f"note IS NULL OR ({text})"),
        check("created_at", time),
        check("expires_at", f"expires_at IS NULL OR ({time})"),
        check("revoked_at", f"revoked_at IS NULL OR ({time})"),
    )
    op.create_index("ix_api_keys_tenant_id", "api_keys", ["tenant_id"])


def downgrade() -> None:
    op.drop_table("api_keys")


def check(column: str, rule: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(sa.text(rule.format(column)), name=op.f(f"ck_api_keys_{column}"))
