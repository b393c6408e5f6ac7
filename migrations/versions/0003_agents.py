"""What people call their agents.

Revision ID: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# As for events: what could not be shown, or sorted by time, is refused whoever writes it.
PG_TEXT = r"char_length({0}) BETWEEN 1 AND 255 AND {0} !~ '[\u0001-\u001f\u007f-\u009f]'"
PG_TIME = "{0} >= '1970-01-01 00:00:00+00' AND {0} < '10000-01-01 00:00:00+00'"
SQLITE_TEXT = (
    "typeof({0}) = 'text' AND length({0}) BETWEEN 1 AND 255 AND instr({0}, char(0)) = 0 AND"
    " {0} NOT GLOB ('*[' || char(1) || '-' || char(31) || char(127) || '-' || char(159) || ']*')"
)
# Compared as text with other instants, so always with six digits.
SQLITE_TIME = (
    "typeof({0}) = 'text' AND {0} >= '1970-01-01'"
    " AND datetime(substr({0}, 1, 19), '+0 days') IS substr({0}, 1, 19)"
    " AND substr({0}, 20) GLOB '.[0-9][0-9][0-9][0-9][0-9][0-9]'"
)


def upgrade() -> None:
    postgresql = op.get_bind().dialect.name == "postgresql"
    # Names, too: their case is folded alike on every database and in every locale.
    text_type = sa.Text(collation="C") if postgresql else sa.Text()
    text, time = (PG_TEXT, PG_TIME) if postgresql else (SQLITE_TEXT, SQLITE_TIME)
    op.create_table(
        "agents",
        sa.Column("tenant_id", text_type, nullable=False),
        sa.Column("agent_id", text_type, nullable=False),
        # NULL: it was taken back, and what was said before stays so.
        sa.Column("name", text_type),
        sa.Column("named_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "agent_id", name="pk_agents"),
        check("tenant_id", text),
        check("agent_id", text),
        check("name", f"name IS NULL OR ({text})"),
        check("named_at", time),
        # Each batch that says a name dates it anew: room for that, so that it touches no index.
        postgresql_with={"fillfactor": 70},
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("agents")


def check(column: str, rule: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(sa.text(rule.format(column)), name=op.f(f"ck_agents_{column}"))
