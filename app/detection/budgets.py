"""Budgets: judges how a budget is used, as a finding of the kind ``budget``.

A budget has at most one finding for each of its periods. It is opened when the budget will be
crossed, when 80 % are used, or when all of it is, and then only rises. It is resolved when the
period is over, when the budget is changed so that none of this holds, and when it was a projection
that no longer crosses.
"""

from dataclasses import dataclass, replace
from datetime import datetime

from app.detection.findings import BudgetNumbers, Finding, Kind, Part, Severity, Share, finding_id

NEAR = 0.8
# A projection moves from hour to hour. It no longer crosses below this part of the budget.
CLEARLY_BELOW = 0.95
CROSSES, MOST, ALL = "crosses", "most", "all"
OVER, ENDED, CHANGED = "period over", "ended", "budget changed"
_SEVERITIES = {CROSSES: Severity.INFO, MOST: Severity.WARNING, ALL: Severity.CRITICAL}


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """A budget, and how it is used at an instant.

    Attributes:
        agent: empty for the organization.
        begin, end: the period, half-open.
        used: the tokens of the period so far.
        at: the instant up to which tokens are counted.
    """

    agent: str
    numbers: BudgetNumbers
    begin: datetime
    end: datetime
    used: int
    at: datetime

    def finding_id(self, tenant_id: str) -> str:
        """The id of the finding of this budget and period."""
        part = Part.AGENT if self.agent else Part.ORGANIZATION
        key = (Kind.BUDGET, part, self.agent)
        return finding_id(tenant_id, key, self.begin, self.numbers.period)


def judge_budget(tenant_id: str, use: BudgetUse, before: Finding | None) -> Finding | None:
    """The finding of a budget in its present period; ``None`` if there is none.

    It is ``before`` itself if nothing has changed that is worth telling: the threshold, the whole
    percent that is used, or the day on which it is crossed.

    Args:
        before: the stored finding of the budget and period.
    """
    is_same = before is not None and _tokens(before) == use.numbers.tokens
    reached = _reached(use, before if is_same else None)
    if reached is None:
        if before is None or not before.is_open:
            return before
        return resolve_budget(before, use.at, ENDED if is_same else CHANGED)
    found = _finding(tenant_id, use, reached, before)
    return before if before is not None and _told(before) == _told(found) else found


def resolve_budget(finding: Finding, at: datetime, resolution: str) -> Finding:
    """A finding of a budget that is deleted or changed, or whose period is over."""
    if not finding.is_open:
        return finding
    return replace(finding, resolved_at=min(at, finding.end), resolution=resolution)


def _reached(use: BudgetUse, before: Finding | None) -> str | None:
    """The threshold that is reached, if one is."""
    numbers = use.numbers
    if use.used >= numbers.tokens:
        return ALL
    if use.used >= NEAR * numbers.tokens:
        return MOST
    is_open = before is not None and before.is_open
    least = CLEARLY_BELOW * numbers.tokens if is_open else numbers.tokens
    return CROSSES if numbers.projected >= least else None


def _finding(tenant_id: str, use: BudgetUse, reached: str, before: Finding | None) -> Finding:
    severity = _SEVERITIES[reached]
    opened_at = use.at
    if before is not None:
        opened_at = before.opened_at
        severity = max(severity, before.severity, key=lambda one: one.rank)
    share = Share(use.agent, use.used, 0, 1.0)
    return Finding(
        id=use.finding_id(tenant_id),
        kind=Kind.BUDGET,
        part=Part.AGENT if use.agent else Part.ORGANIZATION,
        agent=use.agent,
        severity=severity,
        opened_at=opened_at,
        start=use.begin,
        end=use.end,
        last_seen=use.at,
        observed=use.used,
        usual=None,
        agents=(share,) if use.agent else (),
        detail=reached,
        budget=use.numbers,
    )


def _tokens(finding: Finding) -> int | None:
    return None if finding.budget is None else finding.budget.tokens


def _told(finding: Finding) -> tuple[object, ...]:
    """What of a finding is worth an update."""
    numbers = finding.budget
    tokens = numbers.tokens if numbers else 1
    crosses_on = numbers.crosses_on if numbers else None
    percent = finding.observed * 100 // tokens
    # Beyond the budget each further tenth is enough.
    percent = percent if percent < 100 else percent // 10 * 10
    return finding.detail, finding.is_open, tokens, crosses_on, percent
