"""Agents: the directory and the agents' names, at ``/api/v1/agents``."""

from flask import Blueprint, Response, g, request

from app.intake import agent_names
from app.reports.agents import SORTS, agents_page
from app.web import params, rate_limit, request_log
from app.web.api import access
from app.web.api.bodies import agent_texts, json_text
from app.web.api.schemas import AgentDirectory, AgentName, NamesReceipt
from app.web.context import connection, kept, services
from app.web.responses import json_response, report_response

PREFIX = "/api/v1/agents"

bp = Blueprint("agents", __name__, url_prefix=PREFIX)
bp.before_request(access.authenticate)
bp.before_request(access.require_read)
bp.before_request(rate_limit.count_request)

naming = Blueprint("naming", __name__, url_prefix=PREFIX)
naming.before_request(access.authenticate)
naming.before_request(access.require_tenant)
naming.before_request(access.require_agents_write)
naming.before_request(rate_limit.count_request)


@bp.get("")
def list_agents() -> Response:
    """Agents that have a name or were issued tokens, one page at a time."""
    arguments = params.arguments()
    sort = params.one_of(arguments, "sort", SORTS)
    page = agents_page(
        connection(),
        g.tenant_id,
        after=params.agents_cursor(arguments, sort),
        limit=params.page_limit(arguments),
        text=params.search(arguments),
        sort=sort,
        kept_from=kept().agents,
    )
    next_cursor = params.next_agents_cursor(page.next_after, sort)
    body = AgentDirectory(g.tenant_id, page.points, next_cursor)
    return report_response(body, page.counted_at)


@naming.put("")
def name_agents() -> Response:
    """Name many agents. When one name is invalid, none is stored."""
    settings = services().settings
    texts = agent_texts(request, settings.max_body_bytes, params.MAX_AGENTS)
    _set_names(agent_names.parse_names(texts, settings.max_event_bytes))
    return json_response(NamesReceipt(len(texts)))


@naming.put("/<text:agentId>")
def name_agent(agentId: str) -> Response:  # noqa: N803 - the OpenAPI path uses this spelling
    """Name one agent, or remove its name; optionally say how long its tokens live."""
    agent_id = params.agent_id(agentId)
    settings = services().settings
    text = json_text(request, settings.max_body_bytes)
    body = agent_names.parse_name(text, settings.max_event_bytes)
    agent_names.set_agent(
        services().database, g.tenant_id, agent_id, body, services().clock(), by=g.caller.subject
    )
    request_log.note(names=1)
    return json_response(AgentName(agent_id, body.name, body.token_lifetime))


def _set_names(names: dict[str, str | None]) -> None:
    agent_names.set_names(
        services().database, g.tenant_id, names, services().clock(), by=g.caller.subject
    )
    request_log.note(names=len(names))
