"""An agent's page: its days, its hours of the week, what it needs, and its name."""

from collections.abc import Mapping

import msgspec
from flask import Blueprint, Response, g, redirect, request
from werkzeug.wrappers import Response as Redirect

from app.auth.claims import AGENTS_WRITE
from app.dates import month_of
from app.errors import NotFoundError, ValidationError
from app.ids import is_id
from app.intake import agent_names
from app.reports import agent, agents, findings
from app.reports.agents import AgentLife
from app.reports.finer import Span, or_missing
from app.web import errors, params, rate_limit, request_log
from app.web.context import connection, kept, services, stored_options
from app.web.pages import signin
from app.web.pages.agent_charts import days_chart, months_chart, week_rows
from app.web.pages.budget_tiles import agent_tiles, read_budgets
from app.web.pages.exports import export
from app.web.pages.filters import RANGE_NAMES, given_of, parse_filters
from app.web.pages.frame import frame_response

MOST_FINDINGS = 20

bp = Blueprint("agent", __name__, url_prefix="/dashboard/agent")
bp.before_request(signin.require_session)
bp.before_request(rate_limit.count_request)


@bp.get("")
def page() -> Response:
    """An agent of the organization."""
    return _page(_agent_id())


@bp.post("")
def rename() -> Redirect:
    """Set the agent's name and the lifetime of its tokens."""
    signin.require_scope(AGENTS_WRITE)
    signin.require_own_organization()
    agent_id, now = _agent_id(), services().clock()
    _life(agent_id)
    g.agent_id = agent_id
    body = agent_names.parse_name(_body(request.form), services().settings.max_event_bytes)
    agent_names.set_agent(
        services().database, g.tenant_id, agent_id, body, now, by=g.caller.subject
    )
    request_log.note(names=1)
    filters = parse_filters(params.arguments(), now)
    return redirect(filters.url("agent.page", {"agentId": agent_id, "saved": 1}), 303)


@bp.errorhandler(ValidationError)
def problem(error: ValidationError) -> Response:
    """The page with what was typed, if the form was invalid."""
    if "agent_id" not in g:  # not of a form, or the form was refused
        return errors.service_error(error)
    request_log.note_cause(error)
    first = next(iter((error.details or {}).get("errors", ())), None)
    text = errors.sentence(error.message if first is None else f"{first.field} {first.message}")
    response = _page(g.agent_id, problem=text, typed=request.form)
    response.status_code = error.status
    return response


def _page(
    agent_id: str, *, problem: str | None = None, typed: Mapping[str, str] | None = None
) -> Response:
    arguments, now = params.arguments(), services().clock()
    filters, life = parse_filters(arguments, now), _life(agent_id)
    span, compared = Span(filters.days, kept()), filters.compared
    # It has the settings of the organization, too, so that they are not read again.
    budgets = read_budgets(agent_id)
    days = or_missing(lambda: agent.agent_days(connection(), g.tenant_id, agent_id, span, compared))
    own = findings.findings_page(
        connection(),
        g.tenant_id,
        findings.FindingsFilter(status="all", agent_id=agent_id),
        stored_options,
        limit=MOST_FINDINGS,
    ).findings
    options = stored_options(g.tenant_id)
    usual_day = None if isinstance(days, tuple) else days.usual_day
    needed = agent.need(
        usual_day,
        life.agent.token_lifetime or options.token_lifetime,
        options.price_per_thousand,
    )
    month = month_of(budgets.today)
    used = sum(one.issued for one in life.months if one.month == month)
    return frame_response(
        "agent.html",
        filters,
        life.counted_at,
        ranges=RANGE_NAMES,
        life=life,
        days=days,
        chart=None if isinstance(days, tuple) else days_chart(filters, days, own, agent_id),
        rows=[] if isinstance(days, tuple) else week_rows(days),
        months=months_chart(filters, life, agent_id),
        findings=own,
        need=needed,
        usage=agent_tiles(budgets, used, needed.cost if needed else None),
        currency=options.currency,
        default_lifetime=options.token_lifetime,
        is_saved=params.saved(arguments),
        problem=problem,
        typed=typed,
        values={"agentId": agent_id},
        exports={
            "tokens": export(
                "tokens", filters.days, organization=filters.organization, agentId=agent_id
            )
        },
    )


def _life(agent_id: str) -> AgentLife:
    """What is known of the page's agent.

    Raises:
        NotFoundError: the organization has no such agent.
    """
    month = month_of(services().clock().date())
    life = agents.agent_life(
        connection(), g.tenant_id, agent_id, month=month, kept_from=kept().agents
    )
    if life is None:
        raise NotFoundError("the organization has no agent with this id")
    return life


def _agent_id() -> str:
    """The agent of the page.

    Raises:
        NotFoundError: the query names none, or what it names is not an id.
    """
    agent_id = given_of(params.arguments()).get("agentId", "")
    if not is_id(agent_id):
        raise NotFoundError("the organization has no agent with this id")
    return agent_id


def _body(form: Mapping[str, str]) -> bytes:
    """The form as the API's body; an empty field takes the value back."""
    lifetime = form.get("lifetime", "").strip()
    is_number = lifetime.isascii() and lifetime.isdigit() and len(lifetime) < 10
    body = {
        "name": form.get("name", "").strip() or None,
        "tokenLifetime": int(lifetime) if is_number else lifetime or None,
    }
    return msgspec.json.encode(body)
