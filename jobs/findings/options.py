"""Options: the settings of organizations, as the rules of detection take them."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date

import sqlalchemy as sa
from sqlalchemy import Connection

from app.detection import Options
from app.intake.organization_settings import (
    OrganizationSettings,
    dates_off,
    options_of,
    read_settings,
)
from app.storage.tables import agents, organization_settings


def options_for(
    connection: Connection, tenants: Sequence[str], token_lifetime: int, first: date, last: date
) -> dict[str, Options]:
    """The options of each of some organizations.

    Args:
        token_lifetime: the lifetime of tokens where an organization has set none.
        first, last: days off are those from the first to the last day.
    """
    column = organization_settings.c
    rows = connection.execute(sa.select(organization_settings).where(column.tenant_id.in_(tenants)))
    stored = {row.tenant_id: read_settings(row) for row in rows}
    agent = agents.c
    lifetimes: dict[str, dict[str, int]] = {}
    for row in connection.execute(
        sa.select(agent.tenant_id, agent.agent_id, agent.token_lifetime).where(
            agent.tenant_id.in_(tenants), agent.token_lifetime.is_not(None)
        )
    ):
        lifetimes.setdefault(row.tenant_id, {})[row.agent_id] = row.token_lifetime
    found = {}
    for tenant in tenants:
        settings = stored.get(tenant, OrganizationSettings())
        off = dates_off(settings.days_off, first, last)
        options = options_of(settings, token_lifetime, off)
        found[tenant] = replace(options, token_lifetimes=lifetimes.get(tenant, {}))
    return found
