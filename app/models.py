"""The tables, as the migrations make them. Data only: no queries, no behaviour.

Every id compares and sorts by code point on both databases: ``COLLATE "C"`` on
PostgreSQL, SQLite's own order.
"""

import sqlalchemy as sa
from sqlalchemy import Column, Named, Table, TypedColumns

from app.db import UTCDateTime

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

Id = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
Big = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


class IssuanceEventColumns(TypedColumns):
    """One token issued; ``id`` orders arrival, ``(tenant_id, event_id)`` is the identity."""

    id: Named[int] = Column(Big, sa.Identity(always=True), index=True)
    tenant_id: Named[str] = Column(Id, primary_key=True)
    event_id: Named[str] = Column(Id, primary_key=True)
    agent_id: Named[str] = Column(Id)
    issued_at = Column(UTCDateTime, nullable=False)
    received_at = Column(UTCDateTime, nullable=False, server_default=sa.func.now())


class DailyIssuanceColumns(TypedColumns):
    """Tokens issued per tenant and UTC day."""

    tenant_id: Named[str] = Column(Id, primary_key=True)
    date = Column(sa.Date, primary_key=True)
    issued: Named[int] = Column(sa.BigInteger)


class DowHourActivityColumns(TypedColumns):
    """Tokens issued per tenant, month, day of week (0 is Sunday) and hour, all UTC."""

    tenant_id: Named[str] = Column(Id, primary_key=True)
    month = Column(sa.Date, primary_key=True)
    dow: Named[int] = Column(sa.SmallInteger, primary_key=True, autoincrement=False)
    hour: Named[int] = Column(sa.SmallInteger, primary_key=True, autoincrement=False)
    issued: Named[int] = Column(sa.BigInteger)


class MonthlyAgentIssuanceColumns(TypedColumns):
    """Tokens issued per tenant, UTC month (its first day) and agent."""

    tenant_id: Named[str] = Column(Id, primary_key=True)
    month = Column(sa.Date, primary_key=True)
    agent_id: Named[str] = Column(Id, primary_key=True)
    issued: Named[int] = Column(sa.BigInteger)


class RollupStateColumns(TypedColumns):
    """The job's one row: its lock, its watermark, and what a run left to be resumed.

    ``watermark``: every event with ``id <= watermark`` is counted, no other is.
    ``candidate``: a higher id that becomes safe once every transaction in
    ``writers`` (as ``jobs.watermark`` names them, separated by spaces) has ended.
    ``corrections``: how many rebuilds have changed numbers.
    """

    id: Named[int] = Column(sa.SmallInteger, primary_key=True, autoincrement=False)
    watermark: Named[int] = Column(sa.BigInteger)
    candidate: Named[int | None] = Column(sa.BigInteger)
    writers: Named[str | None] = Column(sa.Text)
    last_started = Column(UTCDateTime)
    last_finished = Column(UTCDateTime)
    corrections: Named[int] = Column(sa.BigInteger, server_default=sa.text("0"))


class RollupRunColumns(TypedColumns):
    """A run that did something or failed. One that is ``running`` for long was killed."""

    id: Named[int] = Column(Big, sa.Identity(always=True), primary_key=True)
    started_at = Column(UTCDateTime, nullable=False)
    finished_at = Column(UTCDateTime)
    outcome: Named[str] = Column(sa.Text)
    events: Named[int] = Column(sa.BigInteger)
    buckets: Named[int] = Column(sa.BigInteger)
    watermark_from: Named[int] = Column(sa.BigInteger)
    watermark_to: Named[int] = Column(sa.BigInteger)
    error: Named[str | None] = Column(sa.Text)
    host: Named[str] = Column(sa.Text)
    pid: Named[int] = Column(sa.BigInteger)


class RollupCorrectionColumns(TypedColumns):
    """What the rebuild number ``correction`` changed: a tenant's total of a month in a table."""

    tenant_id: Named[str] = Column(Id, primary_key=True)
    correction: Named[int] = Column(sa.BigInteger, primary_key=True, autoincrement=False)
    table_name: Named[str] = Column(sa.Text, primary_key=True)
    month = Column(sa.Date, primary_key=True)
    old_total: Named[int] = Column(sa.BigInteger)
    new_total: Named[int] = Column(sa.BigInteger)
    corrected_at = Column(UTCDateTime, nullable=False)
    corrected_by: Named[str] = Column(sa.Text)


class PurgedMonthColumns(TypedColumns):
    """A month that raw events were deleted from: it can no longer be recounted."""

    month = Column(sa.Date, primary_key=True)
    events: Named[int] = Column(sa.BigInteger)


class AgentColumns(TypedColumns):
    """What a tenant calls an agent, and since when; no name: it was taken back then."""

    tenant_id: Named[str] = Column(Id, primary_key=True)
    agent_id: Named[str] = Column(Id, primary_key=True)
    name: Named[str | None] = Column(Id)
    named_at = Column(UTCDateTime, nullable=False)


issuance_events = Table("issuance_events", metadata, IssuanceEventColumns)
daily_issuance = Table("daily_issuance", metadata, DailyIssuanceColumns)
dow_hour_activity = Table("dow_hour_activity", metadata, DowHourActivityColumns)
monthly_agent_issuance = Table("monthly_agent_issuance", metadata, MonthlyAgentIssuanceColumns)
rollup_state = Table("rollup_state", metadata, RollupStateColumns)
rollup_runs = Table("rollup_runs", metadata, RollupRunColumns)
rollup_corrections = Table("rollup_corrections", metadata, RollupCorrectionColumns)
purged_months = Table("purged_months", metadata, PurgedMonthColumns)
agents = Table("agents", metadata, AgentColumns)
