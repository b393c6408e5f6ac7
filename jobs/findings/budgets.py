"""Budgets of the organizations that are judged, as findings.

They are no history: a budget is judged by what is counted now, and by where that leads. So a
recompute leaves these findings alone.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection

from app.alerts.budgets import list_budgets
from app.detection import Finding, Kind
from app.detection.budgets import CHANGED, OVER, judge_budget, resolve_budget
from app.intake.organization_settings import options_between
from app.storage.tables import budgets, findings
from jobs.findings.storing import Change

_CONTENT = msgspec.json.Decoder(Finding)
_BUDGET, _FINDING = budgets.c, findings.c


def changed_budgets(connection: Connection, since: datetime) -> set[str]:
    """The organizations that have set a budget since an instant."""
    return set(connection.scalars(sa.select(_BUDGET.tenant_id).where(_BUDGET.set_at > since)))


def budget_changes(
    connection: Connection, tenants: Sequence[str], counted_at: datetime
) -> list[Change]:
    """The findings of budgets to open, update or resolve, in some organizations.

    An organization without a budget and without such a finding costs nothing but its part in one
    statement.
    """
    if not tenants:
        return []
    with_budgets = set()
    opened: dict[str, dict[str, Finding]] = {}
    for tenant, content in connection.execute(_with_budgets(tenants)):
        if content is None:
            with_budgets.add(tenant)
        else:
            finding = _CONTENT.decode(content)
            opened.setdefault(tenant, {})[finding.id] = finding
    return [
        change
        for tenant in sorted(with_budgets | opened.keys())
        for change in _changes(
            connection, tenant, opened.get(tenant, {}), counted_at, has_any=tenant in with_budgets
        )
    ]


def _with_budgets(tenants: Sequence[str]) -> sa.CompoundSelect[Any]:
    """The organizations with a budget, and the open findings of budgets."""
    nothing = sa.cast(sa.null(), sa.Text).label("content")
    own = sa.select(_BUDGET.tenant_id, nothing).where(_BUDGET.tenant_id.in_(tenants)).distinct()
    opened = sa.select(_FINDING.tenant_id, _FINDING.content).where(
        _FINDING.tenant_id.in_(tenants),
        _FINDING.status == "open",
        _FINDING.kind == Kind.BUDGET.value,
    )
    return sa.union_all(own, opened)


def _changes(
    connection: Connection,
    tenant: str,
    opened: dict[str, Finding],
    counted_at: datetime,
    *,
    has_any: bool,
) -> Iterator[Change]:
    uses = {}
    if has_any:
        report = list_budgets(connection, tenant, counted_at, options_between)
        uses = {use.finding_id(tenant): use for use in report.uses()}
        missing = sorted(uses.keys() - opened.keys())
        # Those that are acknowledged, or were resolved in this period, are not among the open ones.
        stored = sa.select(_FINDING.id, _FINDING.content).where(
            _FINDING.tenant_id == tenant, _FINDING.id.in_(missing)
        )
        rows = connection.execute(stored).all() if missing else []
        opened = opened | {row.id: _CONTENT.decode(row.content) for row in rows}
    for finding_id, use in uses.items():
        before = opened.get(finding_id)
        found = judge_budget(tenant, use, before)
        if found is not None and found is not before:
            yield Change(tenant, found, is_new=before is None)
    for finding_id, before in opened.items():
        if finding_id not in uses:
            over = before.end <= counted_at
            found = resolve_budget(before, counted_at, OVER if over else CHANGED)
            if found is not before:
                yield Change(tenant, found, is_new=False)
