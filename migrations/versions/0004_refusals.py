"""The newest counted event, and a refusal to count that lasts.

The previous version ignores these columns: it moves the watermark alone, and does not know of a
refusal. So ``newest_upto`` keeps the watermark that the newest event belongs to.

Revision ID: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

COLUMNS = ("newest", "newest_tenant_id", "newest_event_id", "newest_upto", "refusal")


def upgrade() -> None:
    postgresql = op.get_bind().dialect.name == "postgresql"
    id_type = sa.Text(collation="C") if postgresql else sa.Text()
    for column in (
        sa.Column("newest", sa.BigInteger),
        sa.Column("newest_tenant_id", id_type),
        sa.Column("newest_event_id", id_type),
        sa.Column("newest_upto", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("refusal", sa.Text),
    ):
        op.add_column("rollup_state", column)
    note_newest_event()


def note_newest_event() -> None:
    """Note the newest counted event: one look into the index, while no run can move on."""
    connection = op.get_bind()
    state = sa.table("rollup_state", sa.column("watermark"), *map(sa.column, COLUMNS))
    event = sa.table("issuance_events", *map(sa.column, ("id", "tenant_id", "event_id")))
    watermark = connection.scalar(sa.select(state.c.watermark))
    if watermark is None:  # the state row is missing, which every command reports
        return
    newest = connection.execute(
        sa.select(event).where(event.c.id <= watermark).order_by(event.c.id.desc()).limit(1)
    ).one_or_none()
    values = dict(zip(COLUMNS, newest or (None, None, None), strict=False))
    connection.execute(sa.update(state).values(values | {"newest_upto": watermark}))


def downgrade() -> None:
    for name in reversed(COLUMNS):
        op.drop_column("rollup_state", name)
