"""Digests of organizations: makes one with everything that belongs into it."""

from datetime import datetime

from sqlalchemy import Connection

from app.alerts.budgets import list_budgets
from app.config.settings import Settings
from app.dates import kept_from
from app.intake.organization_settings import options_between, options_of, settings_of
from app.reports.digest import Digest, DigestBudget, Period, digest
from app.reports.finer import Kept


def organization_digest(
    connection: Connection, tenant_id: str, period: Period, settings: Settings, now: datetime
) -> Digest:
    """The digest of an organization for a week or a month; budgets are those of now.

    Raises:
        UnavailableError: the state row is missing.
    """
    options = options_of(settings_of(connection, tenant_id), settings.token_lifetime_seconds)
    budgets = [
        DigestBudget(
            agent_id=one.agent_id,
            agent_name=None,
            period=one.period,
            tokens=one.tokens,
            used=one.used,
            projected=one.projected,
            crosses_on=one.crosses_on,
        )
        for one in list_budgets(connection, tenant_id, now, options_between).budgets
    ]
    kept = Kept(
        kept_from(now.date(), settings.hourly_retention_days),
        kept_from(now.date(), settings.agent_daily_retention_days),
    )
    return digest(connection, tenant_id, period, kept, lambda _tenant: options, budgets)
