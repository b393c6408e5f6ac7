"""The directory of agents: ``GET`` and ``PUT`` of ``/api/v1/agents``."""

from flask import Blueprint, Response, g, request

from app.intake import agent_names
from app.intake.agent_names import parse_name, parse_names
from app.reports import agents as directory
from app.web import params
from app.web import rate_limit as limits
from app.web import request_log as observe
from app.web.api import access
from app.web.api.bodies import agent_texts, json_text
from app.web.api.schemas import AgentDirectory, AgentName, NamesReceipt
from app.web.context import connection, services
from app.web.params import arguments, path_text
from app.web.responses import json_response, report_response

PREFIX = "/api/v1/agents"

bp = Blueprint("agents", __name__, url_prefix=PREFIX)
bp.before_request(access.authenticate)
bp.before_request(access.require_tenant)
bp.before_request(limits.count_request)

naming = Blueprint("naming", __name__, url_prefix=PREFIX)
naming.before_request(access.authenticate)
naming.before_request(access.require_tenant)
naming.before_request(access.require_agents_write)
naming.before_request(limits.count_request)


@bp.get("")
def list_agents() -> Response:
    """Agents that have a name or were issued tokens, by id, page by page."""
    given = arguments()
    after, limit, text = params.cursor(given), params.page_limit(given), params.search(given)
    # One more than is shown tells whether there is a next page.
    found = directory.agents_page(
        connection(), g.tenant_id, after=after, limit=limit + 1, text=text
    )
    page = found.points[:limit]
    cursor = params.cursor_after(page[-1].agent_id) if len(found.points) > limit else None
    return report_response(AgentDirectory(g.tenant_id, page, cursor), found.counted_at)


@naming.put("")
def name_agents() -> Response:
    """Name many agents, all of them or, when one is refused, none."""
    texts = agent_texts(request, services().settings.max_body_bytes, params.MAX_AGENTS)
    names = parse_names(texts)
    _name(names)
    return json_response(NamesReceipt(len(texts)))


@naming.put("/<text:agentId>")
def name_agent(agentId: str) -> Response:  # noqa: N803 - as the description of the API has it
    """Name one agent, or take its name back."""
    agent_id = params.agent_id(path_text(agentId))
    name = parse_name(json_text(request, services().settings.max_body_bytes))
    _name({agent_id: name})
    return json_response(AgentName(agent_id, name))


def _name(names: dict[str, str | None]) -> None:
    agent_names.set_names(services().database, g.tenant_id, names, services().clock())
    observe.note(names=len(names))
