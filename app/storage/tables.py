"""Every table, as the migrations create it. No queries and no behaviour.

Every id compares and sorts by code point on both databases: by ``COLLATE "C"`` on PostgreSQL, by
the default order on SQLite.
"""

import sqlalchemy as sa
from sqlalchemy import Column, Named, Table, TypedColumns

from app.storage.types import UTCDateTime

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
    """One issued token: ``id`` is the order of arrival, ``(tenant_id, event_id)`` the identity."""

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


class HourlyIssuanceColumns(TypedColumns):
    """Tokens issued per tenant and UTC hour of a day."""

    tenant_id: Named[str] = Column(Id, primary_key=True)
    date = Column(sa.Date, primary_key=True)
    hour: Named[int] = Column(sa.SmallInteger, primary_key=True, autoincrement=False)
    issued: Named[int] = Column(sa.BigInteger)


class DailyAgentIssuanceColumns(TypedColumns):
    """Tokens issued per tenant, UTC day and agent.

    ``hours``: a mask; bit h is set if the agent was issued a token in the UTC hour h.
    """

    tenant_id: Named[str] = Column(Id, primary_key=True)
    date = Column(sa.Date, primary_key=True)
    agent_id: Named[str] = Column(Id, primary_key=True)
    issued: Named[int] = Column(sa.BigInteger)
    hours: Named[int] = Column(sa.Integer)


class DowHourTotalColumns(TypedColumns):
    """Tokens issued per tenant, day of week (0 is Sunday) and hour: all months together."""

    tenant_id: Named[str] = Column(Id, primary_key=True)
    dow: Named[int] = Column(sa.SmallInteger, primary_key=True, autoincrement=False)
    hour: Named[int] = Column(sa.SmallInteger, primary_key=True, autoincrement=False)
    issued: Named[int] = Column(sa.BigInteger)


class RollupStateColumns(TypedColumns):
    """One row, the state row: the jobs' lock, the watermark, and state for the next run.

    ``counted_upto``: the watermark: events with ids up to it are counted, no others.
    ``candidate``: a higher id. It becomes safe when every transaction in ``writers`` has ended.
    ``writers``: names as in ``jobs.counting.watermark``, separated by spaces.
    ``corrections``: the number of rebuilds that have changed numbers.
    ``newest``, ``newest_tenant_id``, ``newest_event_id``: id and key of the newest event with an id
    up to ``newest_upto``, a watermark; null if there is none. See ``jobs.counting.refusals``.
    ``refusal``: why counting is refused until ``flask rollup resume``.
    ``last_tick``: when a scheduler last began a run.
    ``backfilled``, ``backfill_end``: ids. The tables that an upgrade added do not count the events
    above the first up to the second yet. See ``jobs.counting.backfill``.
    ``hours_from``, ``agents_from``: hourly_issuance, and daily_agent_issuance, may lack events of
    days before it for good, because the events were purged or lost before a backfill counted them,
    or the days are not kept; null: the table lacks none.
    """

    id: Named[int] = Column(sa.SmallInteger, primary_key=True, autoincrement=False)
    counted_upto: Named[int] = Column(sa.BigInteger)
    candidate: Named[int | None] = Column(sa.BigInteger)
    writers: Named[str | None] = Column(sa.Text)
    last_tick = Column(UTCDateTime)
    last_finished = Column(UTCDateTime)
    corrections: Named[int] = Column(sa.BigInteger, server_default=sa.text("0"))
    newest: Named[int | None] = Column(sa.BigInteger)
    newest_tenant_id: Named[str | None] = Column(Id)
    newest_event_id: Named[str | None] = Column(Id)
    newest_upto: Named[int] = Column(sa.BigInteger, server_default=sa.text("0"))
    refusal: Named[str | None] = Column(sa.Text)
    backfilled: Named[int] = Column(sa.BigInteger, server_default=sa.text("0"))
    backfill_end: Named[int] = Column(sa.BigInteger, server_default=sa.text("0"))
    hours_from = Column(sa.Date)
    agents_from = Column(sa.Date)


class RollupRunColumns(TypedColumns):
    """A run that counted events or failed. A run that stays ``running`` was killed."""

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
    """A change by rebuild number ``correction``: a tenant's total of a month in a table.

    ``month`` is null for a table of all months together.
    """

    tenant_id: Named[str] = Column(Id)
    correction: Named[int] = Column(sa.BigInteger)
    table_name: Named[str] = Column(sa.Text)
    month = Column(sa.Date)
    old_total: Named[int] = Column(sa.BigInteger)
    new_total: Named[int] = Column(sa.BigInteger)
    corrected_at = Column(UTCDateTime, nullable=False)
    corrected_by: Named[str] = Column(sa.Text)


class PurgedMonthColumns(TypedColumns):
    """A month whose raw events were deleted, so that it can no longer be recounted.

    ``events``: how many counted events are missing, less the uncounted ones of an accepted loss.
    """

    month = Column(sa.Date, primary_key=True)
    events: Named[int] = Column(sa.BigInteger)


class AgentColumns(TypedColumns):
    """An agent's name, and the instant of that name; a null name was removed at that instant.

    ``token_lifetime``: the seconds for which it can keep a token; null as its organization's.
    """

    tenant_id: Named[str] = Column(Id, primary_key=True)
    agent_id: Named[str] = Column(Id, primary_key=True)
    name: Named[str | None] = Column(Id)
    named_at = Column(UTCDateTime, nullable=False)
    token_lifetime: Named[int | None] = Column(sa.Integer)


class ApiKeyColumns(TypedColumns):
    """A key of a caller that has no tokens: its public id, and the SHA-256 of the whole key.

    ``tenant_id`` is null for a key of no single organization. ``scopes`` are separated by spaces.
    ``last_used`` is the UTC day of the last use.
    """

    id: Named[str] = Column(Id, primary_key=True)
    tenant_id: Named[str | None] = Column(Id, index=True)
    sha256: Named[str] = Column(sa.Text)
    scopes: Named[str] = Column(sa.Text)
    note: Named[str | None] = Column(sa.Text)
    created_at = Column(UTCDateTime, nullable=False)
    expires_at = Column(UTCDateTime)
    revoked_at = Column(UTCDateTime)
    last_used = Column(sa.Date)


class SourcePositionColumns(TypedColumns):
    """How far a followed file or a pulled log is read, and what its records were.

    ``place``: the host that followed the file first; empty for a pulled log.
    ``kind``: ``follow``, or the provider of a pulled log.
    ``position``: JSON, see ``app.intake.sources``. It changes with the events that it counts.
    ``version``: counts the changes, so that of two readers at one position one is refused.
    ``claimed_at``: when a pull began or last stored a page.
    ``newest_at``: the instant of the newest event.
    ``error``: why the last turn failed, if it did; without text of the source.
    """

    source: Named[str] = Column(Id, primary_key=True)
    place: Named[str] = Column(Id, primary_key=True)
    kind: Named[str] = Column(sa.Text)
    position: Named[str] = Column(sa.Text)
    version: Named[int] = Column(sa.BigInteger, server_default=sa.text("0"))
    claimed_at = Column(UTCDateTime)
    read_at = Column(UTCDateTime)
    newest_at = Column(UTCDateTime)
    accepted: Named[int] = Column(sa.BigInteger, server_default=sa.text("0"))
    duplicates: Named[int] = Column(sa.BigInteger, server_default=sa.text("0"))
    skipped: Named[int] = Column(sa.BigInteger, server_default=sa.text("0"))
    refused: Named[int] = Column(sa.BigInteger, server_default=sa.text("0"))
    error: Named[str | None] = Column(sa.Text)
    failed_at = Column(UTCDateTime)


class FindingColumns(TypedColumns):
    """What is unusual in an organization. ``app.detection`` makes it; people may mark it.

    ``agent_id``: null if it is about the whole organization.
    ``begins_at``, ``ends_at``: the unusual period.
    ``opened_at``: when the counts first satisfied the rule; ``detected_at``: when it was stored.
    ``status``: ``open`` or ``resolved``. An acknowledged finding is resolved.
    ``content``: JSON, an ``app.detection.findings.Finding``, without people's marks.
    ``acknowledged_by``: the client or user of the token or key.
    ``acknowledged_severity``: the severity at that moment; if it rises, the finding is open again.
    ``version``: the number of its changes; each is an event that webhooks send.
    """

    tenant_id: Named[str] = Column(Id, primary_key=True)
    id: Named[str] = Column(Id, primary_key=True)
    kind: Named[str] = Column(sa.Text)
    severity: Named[str] = Column(sa.Text)
    status: Named[str] = Column(sa.Text)
    agent_id: Named[str | None] = Column(Id)
    begins_at = Column(UTCDateTime, nullable=False)
    ends_at = Column(UTCDateTime, nullable=False)
    opened_at = Column(UTCDateTime, nullable=False)
    detected_at = Column(UTCDateTime, nullable=False)
    updated_at = Column(UTCDateTime, nullable=False)
    resolved_at = Column(UTCDateTime)
    resolution: Named[str | None] = Column(sa.Text)
    content: Named[str] = Column(sa.Text)
    acknowledged_at = Column(UTCDateTime)
    acknowledged_by: Named[str | None] = Column(Id)
    acknowledged_severity: Named[str | None] = Column(sa.Text)
    note: Named[str | None] = Column(sa.Text)
    version: Named[int] = Column(sa.BigInteger, server_default=sa.text("0"))


class UsualColumns(TypedColumns):
    """What is usual in an organization, and how far its days are judged.

    ``judged_through``: the last whole day that was judged.
    ``changed_from``: the first judged day whose counts have changed since; null if there is none.
    ``due_at``: when it is judged next, even without new events.
    ``delay_seconds``: 99 of 100 events arrive so soon after their issuance; at most 48 hours.
    ``delays``: JSON, the number of events by their delay, on each of the last days.
    ``usuals``: JSON, by day the ``app.detection`` ``Usual`` of each day that is not yet whole.
    ``states``: JSON, by day the ``app.detection`` ``State`` after each of the last whole days.
    """

    tenant_id: Named[str] = Column(Id, primary_key=True)
    judged_through = Column(sa.Date)
    changed_from = Column(sa.Date)
    due_at = Column(UTCDateTime, nullable=False, index=True)
    delay_seconds: Named[int] = Column(sa.Integer)
    delays: Named[str] = Column(sa.Text)
    usuals: Named[str] = Column(sa.Text)
    states: Named[str] = Column(sa.Text)


class DetectionStateColumns(TypedColumns):
    """One row, the claim of detection: which scheduler judges, and which events it has noted.

    ``turn``: the number of claims. A judge that has lost its claim stores nothing.
    ``claimed_until``: until then no other scheduler judges; null if none does.
    ``noted_upto``: the organizations of events with an id up to it were judged since.
    ``noted_correction``: the same for the corrections of rebuilds.
    ``measured_upto``: the delays of events with an id up to it are in ``usual``; ``measured_at``:
    since when.
    ``last_finished``: when all that was due was judged.
    """

    id: Named[int] = Column(sa.SmallInteger, primary_key=True, autoincrement=False)
    turn: Named[int] = Column(sa.BigInteger, server_default=sa.text("0"))
    claimed_until = Column(UTCDateTime)
    noted_upto: Named[int] = Column(sa.BigInteger, server_default=sa.text("0"))
    noted_correction: Named[int] = Column(sa.BigInteger, server_default=sa.text("0"))
    measured_upto: Named[int] = Column(sa.BigInteger, server_default=sa.text("0"))
    measured_at = Column(UTCDateTime)
    last_finished = Column(UTCDateTime)


class OrganizationSettingColumns(TypedColumns):
    """The settings of an organization: days off and price as JSON, and how long tokens live."""

    tenant_id: Named[str] = Column(Id, primary_key=True)
    days_off: Named[str | None] = Column(sa.Text)
    price: Named[str | None] = Column(sa.Text)
    token_lifetime: Named[int | None] = Column(sa.Integer)
    changed_at = Column(UTCDateTime, nullable=False)


class AuditLogColumns(TypedColumns):
    """An administrative change. ``app.storage.audit`` writes and reads it.

    ``tenant_id`` is null for a change of no single organization.
    ``actor``: the subject of the token, ``key:`` and the id of the key, or ``shell:`` and the user
    of the operating system.
    ``action``: as ``key.created``. ``subject``: what was changed, as the id of the key.
    ``details``: JSON, without secrets.
    """

    id: Named[int] = Column(Big, sa.Identity(always=True), primary_key=True)
    tenant_id: Named[str | None] = Column(Id, index=True)
    changed_at = Column(UTCDateTime, nullable=False)
    actor: Named[str] = Column(Id)
    action: Named[str] = Column(sa.Text)
    subject: Named[str] = Column(Id)
    details: Named[str | None] = Column(sa.Text)


class ErasureColumns(TypedColumns):
    """An erasure that has begun and not ended. ``jobs.erasure`` writes it.

    ``agent_id`` is empty while the whole organization is deleted.
    ``replacement``: the random id that the agent gets.
    """

    tenant_id: Named[str] = Column(Id, primary_key=True)
    agent_id: Named[str] = Column(Id, primary_key=True)
    replacement: Named[str | None] = Column(Id)
    begun_at = Column(UTCDateTime, nullable=False)


class ShareLinkColumns(TypedColumns):
    """A link to a page that shows parts of an organization without a token.

    ``views`` are separated by spaces. ``days``: the last days that it shows.
    ``created_by``: the client or user of the token or key.
    ``opened``: how often the page was shown.
    """

    id: Named[str] = Column(Id, primary_key=True)
    tenant_id: Named[str] = Column(Id, index=True)
    views: Named[str] = Column(sa.Text)
    days: Named[int] = Column(sa.Integer)
    created_at = Column(UTCDateTime, nullable=False)
    created_by: Named[str] = Column(Id)
    expires_at = Column(UTCDateTime, nullable=False)
    revoked_at = Column(UTCDateTime)
    opened: Named[int] = Column(sa.BigInteger, server_default=sa.text("0"))
    last_opened_at = Column(UTCDateTime)


class BudgetColumns(TypedColumns):
    """A limit of tokens for each UTC day or month.

    ``agent_id`` is empty for the whole organization. ``period``: ``day`` or ``month``.
    ``set_by``: the client or user of the token or key, or ``shell:`` and a user.
    """

    tenant_id: Named[str] = Column(Id, primary_key=True)
    agent_id: Named[str] = Column(Id, primary_key=True)
    period: Named[str] = Column(Id, primary_key=True)
    tokens: Named[int] = Column(sa.BigInteger)
    set_at = Column(UTCDateTime, nullable=False)
    set_by: Named[str] = Column(Id)


class WebhookEndpointColumns(TypedColumns):
    """Where findings of an organization are sent. ``app.alerts.webhooks`` writes it.

    ``format``: ``standard``, ``slack``, ``teams`` or ``email``.
    ``kinds``: kinds of findings, separated by spaces; null for all.
    ``quiet_from``, ``quiet_to``: as ``22:00``, in ``quiet_zone``; null if no hours are quiet.
    ``digest``: ``weekly``, ``monthly`` or null, which digest it gets.
    ``rotation``: the number of its secret, which is derived and not stored. The one before is valid
    for a day after ``rotated_at``.
    ``disabled_at``, ``disabled_reason``: since when and why nothing is sent.
    ``turn``: the number of claims; ``claimed_until``: until then one process sends to it.
    ``failures``: failed attempts in a row; ``paused_until``: no attempt is made before.
    """

    tenant_id: Named[str] = Column(Id, primary_key=True)
    id: Named[str] = Column(Id, primary_key=True)
    url: Named[str] = Column(sa.Text)
    format: Named[str] = Column(sa.Text)
    kinds: Named[str | None] = Column(sa.Text)
    min_severity: Named[str] = Column(sa.Text)
    cooldown_minutes: Named[int] = Column(sa.Integer)
    quiet_from: Named[str | None] = Column(sa.Text)
    quiet_to: Named[str | None] = Column(sa.Text)
    quiet_zone: Named[str | None] = Column(sa.Text)
    digest: Named[str | None] = Column(sa.Text)
    rotation: Named[int] = Column(sa.Integer, server_default=sa.text("1"))
    rotated_at = Column(UTCDateTime)
    created_at = Column(UTCDateTime, nullable=False)
    created_by: Named[str] = Column(Id)
    disabled_at = Column(UTCDateTime)
    disabled_reason: Named[str | None] = Column(sa.Text)
    turn: Named[int] = Column(sa.BigInteger, server_default=sa.text("0"))
    claimed_until = Column(UTCDateTime)
    failures: Named[int] = Column(sa.Integer, server_default=sa.text("0"))
    paused_until = Column(UTCDateTime)


class WebhookMessageColumns(TypedColumns):
    """The outbox: a message to an endpoint, waiting or done. ``app.storage.outbox`` adds rows.

    ``id``: the ``webhook-id``, the same at each attempt.
    ``kind``: as ``finding.opened``, ``digest.week`` or ``test``.
    ``finding_id``, ``version``: which change of which finding; null for other messages.
    ``content``: the finding at that moment, as in ``findings``; so are ``severity``,
    ``finding_status``, ``detected_at``, ``updated_at``, ``resolved_at`` and ``resolution``.
    ``document``: JSON, what a message without a finding says; ``body``: what is sent, from the
    first attempt on. Both are null once the message is done.
    ``status``: ``waiting``, ``delivered``, ``parked`` (given up) or ``dropped`` (no longer wanted).
    ``next_at``: when it is tried next; null once it is done. ``expires_at``: when it is given up.
    ``last_status``: the status of the last answer; ``error``: why the last attempt failed.
    """

    tenant_id: Named[str] = Column(Id, primary_key=True)
    id: Named[str] = Column(Id, primary_key=True)
    endpoint_id: Named[str] = Column(Id)
    kind: Named[str] = Column(sa.Text)
    severity: Named[str | None] = Column(sa.Text)
    finding_id: Named[str | None] = Column(Id)
    version: Named[int | None] = Column(sa.BigInteger)
    content: Named[str | None] = Column(sa.Text)
    finding_status: Named[str | None] = Column(sa.Text)
    detected_at = Column(UTCDateTime)
    updated_at = Column(UTCDateTime)
    resolved_at = Column(UTCDateTime)
    resolution: Named[str | None] = Column(sa.Text)
    document: Named[str | None] = Column(sa.Text)
    body: Named[str | None] = Column(sa.Text)
    status: Named[str] = Column(sa.Text)
    created_at = Column(UTCDateTime, nullable=False)
    next_at = Column(UTCDateTime)
    expires_at = Column(UTCDateTime, nullable=False)
    attempts: Named[int] = Column(sa.Integer, server_default=sa.text("0"))
    last_status: Named[int | None] = Column(sa.Integer)
    error: Named[str | None] = Column(sa.Text)
    done_at = Column(UTCDateTime)


class ClientOrganizationColumns(TypedColumns):
    """The organization of a client's tokens, where they name none.

    ``people``: whether also the tokens that people got by the client are of the organization.
    """

    client_id: Named[str] = Column(Id, primary_key=True)
    tenant_id: Named[str] = Column(Id, index=True)
    people: Named[bool] = Column(sa.Boolean)
    changed_at = Column(UTCDateTime, nullable=False)


class PageSessionColumns(TypedColumns):
    """A person who is signed in to the pages, in one browser. Signing out deletes the row.

    ``id``: the SHA-256 of the id in the browser's cookie. ``tenant_id``: the organization that the
    pages show; null until one is chosen, and for operators without an own one.
    ``organizations``: a JSON array of those to choose from; null if there is nothing to choose.
    ``scopes`` are separated by spaces. ``expires_at``: the end, whatever the provider says.

    The others are null without an identity provider. ``renew_at``: until when the provider's answer
    holds. ``claimed_until``: a request renews the session until then. ``issued_at``: when the
    provider issued the ID token, by its clock. ``sid``: the provider's own session. ``sealed``:
    the tokens that a renewal and a sign-out need, encrypted by ``SECRET_KEY``; ``form``: a form
    that was sent meanwhile, encrypted as well.
    """

    id: Named[str] = Column(Id, primary_key=True)
    tenant_id: Named[str | None] = Column(Id, index=True)
    subject: Named[str] = Column(Id)
    scopes: Named[str] = Column(sa.Text)
    organizations: Named[str | None] = Column(sa.Text)
    created_at = Column(UTCDateTime, nullable=False)
    expires_at = Column(UTCDateTime, nullable=False)
    renew_at = Column(UTCDateTime)
    claimed_until = Column(UTCDateTime)
    issued_at = Column(UTCDateTime)
    sid: Named[str | None] = Column(Id)
    sealed: Named[str | None] = Column(sa.Text)
    form: Named[str | None] = Column(sa.Text)


class OrganizationSummaryColumns(TypedColumns):
    """An organization in the list of all of them, as ``jobs.organizations`` last summed it up.

    Each period ends with the last whole day before the count that was read (UTC).
    ``tokens_7d``: the tokens of the last 7 days; ``before_7d``: those of the 7 days before.
    ``agents_7d``: the agents with tokens; null if the days of agents are not kept or incomplete.
    ``agents_through``: the last day of these; null if they are to be counted again.
    ``last_day``: the last day with tokens, even if it is not over.
    ``days``, ``weeks``: the tokens of the last 28 days and 13 weeks, without those of 0: pairs as
    ``3:120``, separated by commas. The first number says how many days or weeks before the last.
    """

    tenant_id: Named[str] = Column(Id, primary_key=True)
    tokens_7d: Named[int] = Column(sa.BigInteger)
    tokens_28d: Named[int] = Column(sa.BigInteger)
    tokens_13w: Named[int] = Column(sa.BigInteger)
    before_7d: Named[int] = Column(sa.BigInteger)
    before_28d: Named[int] = Column(sa.BigInteger)
    before_13w: Named[int] = Column(sa.BigInteger)
    agents_7d: Named[int | None] = Column(sa.BigInteger)
    agents_28d: Named[int | None] = Column(sa.BigInteger)
    agents_13w: Named[int | None] = Column(sa.BigInteger)
    agents_through = Column(sa.Date)
    last_day = Column(sa.Date)
    open_findings: Named[int] = Column(sa.BigInteger)
    days: Named[str] = Column(sa.Text)
    weeks: Named[str] = Column(sa.Text)


class OrganizationSummaryStateColumns(TypedColumns):
    """One row: the lock of the task that lists organizations, and how far its pass has come.

    ``began_at``: when the last pass began.
    ``after``: the last organization that the pass under way has summed up; null if none is.
    ``counting``: when the counts that the pass under way reads were made.
    ``counted_at``: the same for the last whole pass; null before the first.
    ``last_finished``: when that pass ended.
    """

    id: Named[int] = Column(sa.SmallInteger, primary_key=True, autoincrement=False)
    began_at = Column(UTCDateTime)
    after: Named[str | None] = Column(Id)
    counting = Column(UTCDateTime)
    counted_at = Column(UTCDateTime)
    last_finished = Column(UTCDateTime)


issuance_events = Table("issuance_events", metadata, IssuanceEventColumns)
daily_issuance = Table("daily_issuance", metadata, DailyIssuanceColumns)
dow_hour_activity = Table("dow_hour_activity", metadata, DowHourActivityColumns)
monthly_agent_issuance = Table("monthly_agent_issuance", metadata, MonthlyAgentIssuanceColumns)
hourly_issuance = Table("hourly_issuance", metadata, HourlyIssuanceColumns)
daily_agent_issuance = Table("daily_agent_issuance", metadata, DailyAgentIssuanceColumns)
dow_hour_total = Table("dow_hour_total", metadata, DowHourTotalColumns)
rollup_state = Table("rollup_state", metadata, RollupStateColumns)
rollup_runs = Table("rollup_runs", metadata, RollupRunColumns)
rollup_corrections = Table("rollup_corrections", metadata, RollupCorrectionColumns)
sa.Index(
    "ix_rollup_corrections_tenant_id",
    *rollup_corrections.c["tenant_id", "correction", "table_name", "month"],
    unique=True,
)
purged_months = Table("purged_months", metadata, PurgedMonthColumns)
agents = Table("agents", metadata, AgentColumns)
api_keys = Table("api_keys", metadata, ApiKeyColumns)
source_positions = Table("source_positions", metadata, SourcePositionColumns)
findings = Table("findings", metadata, FindingColumns)
sa.Index("ix_findings_tenant_id", *findings.c["tenant_id", "status", "opened_at", "id"])
usual = Table("usual", metadata, UsualColumns)
detection_state = Table("detection_state", metadata, DetectionStateColumns)
organization_settings = Table("organization_settings", metadata, OrganizationSettingColumns)
audit_log = Table("audit_log", metadata, AuditLogColumns)
erasures = Table("erasures", metadata, ErasureColumns)
share_links = Table("share_links", metadata, ShareLinkColumns)
budgets = Table("budgets", metadata, BudgetColumns)
webhook_endpoints = Table("webhook_endpoints", metadata, WebhookEndpointColumns)
webhook_messages = Table("webhook_messages", metadata, WebhookMessageColumns)
# What waits for an endpoint, in the order in which it is tried.
sa.Index(
    "ix_webhook_messages_tenant_id",
    *webhook_messages.c["tenant_id", "endpoint_id", "next_at"],
    postgresql_where=webhook_messages.c.next_at.is_not(None),
    sqlite_where=webhook_messages.c.next_at.is_not(None),
)
# The changes of a finding that an endpoint was told.
sa.Index(
    "ix_webhook_messages_finding_id",
    *webhook_messages.c["finding_id", "endpoint_id", "version"],
)
# The log of an endpoint, and the rows that are too old.
sa.Index("ix_webhook_messages_created_at", webhook_messages.c.created_at)
client_organizations = Table("client_organizations", metadata, ClientOrganizationColumns)
page_sessions = Table("page_sessions", metadata, PageSessionColumns)
organization_summaries = Table("organization_summaries", metadata, OrganizationSummaryColumns)
# All but the agents' day and the texts, because every read of the list goes through all rows.
sa.Index(
    "ix_organization_summaries_tenant_id",
    *(
        column
        for column in organization_summaries.c
        if column.name not in {"agents_through", "days", "weeks"}
    ),
)
organization_summary_state = Table(
    "organization_summary_state", metadata, OrganizationSummaryStateColumns
)
