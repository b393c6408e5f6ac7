"""Each route on PostgreSQL once. The rules of a route are tested on SQLite, in tests/app/web."""

import time

import pytest

from app.reports import base, usage
from jobs.organizations import summarize_organizations
from tests.support.api_keys import with_key
from tests.support.findings import stored
from tests.support.pages import DASHBOARD, Browser, heading, place
from tests.support.scripted_idp import ScriptedProvider, sign_in
from tests.support.services import service_of
from tests.support.settings import TENANT, make_settings
from tests.support.tokens import bearer

API = "/api/v1/analytics"
AGENT, OTHER = "Agent Z", "agent a"
EVENTS = [
    {"id": f"e{number}", "agentId": agent, "issuedAt": f"2026-04-14T{9 + number:02}:00:00.5Z"}
    for number, agent in enumerate([AGENT, AGENT, OTHER])
]
HEADERS = bearer(scope="events:write agents:write", exp=4_102_444_800)


@pytest.fixture
def database_url(postgresql_url):
    return postgresql_url


@pytest.fixture
def filled(client, roll_up):
    """Three counted events of two agents, one of them named."""
    answer = client.post("/api/v1/events", json=[*EVENTS, EVENTS[0]], headers=HEADERS)
    assert answer.json == {"received": 4, "accepted": 3, "duplicates": 1}
    named = client.put(f"/api/v1/agents/{AGENT}", json={"name": "billing"}, headers=HEADERS)
    assert named.status_code == 200
    roll_up()
    return client


def get(client, path):
    answer = client.get(path, headers=HEADERS)
    assert answer.status_code == 200, answer.data
    return answer


def test_a_redelivered_event_is_a_duplicate(filled):
    answer = filled.post("/api/v1/events", json=EVENTS[2], headers=HEADERS)
    assert (answer.status_code, answer.json["duplicates"]) == (202, 1)


def test_the_trend_counts_days(filled):
    answer = get(filled, "/api/v1/analytics/tokens?days=2").json
    assert [(point["date"], point["count"]) for point in answer["data"]] == [
        ("2026-04-14", 3),
        ("2026-04-15", 0),
    ]


def test_the_activity_counts_hours_of_the_week(filled):
    answer = get(filled, "/api/v1/analytics/agents/activity?months=1").json
    assert [(cell["dow"], cell["hour"], cell["count"]) for cell in answer["data"]] == [
        (2, 9, 1),
        (2, 10, 1),
        (2, 11, 1),
    ]


def test_the_usage_is_ordered_by_count(filled):
    answer = get(filled, "/api/v1/analytics/agents?month=2026-04").json
    assert [(row["agentId"], row["tokenCount"]) for row in answer["data"]] == [
        (AGENT, 2),
        (OTHER, 1),
    ]


RANGE = "from=2026-04-14&to=2026-04-15&zone=Asia/Kolkata"


@pytest.mark.parametrize(
    ("path", "query"),
    [
        *(("tokens", ""), ("agents/activity", ""), ("agents", "")),
        *((path, RANGE) for path in ("tokens", "tokens/hourly", "agents/activity", "agents")),
    ],
)
def test_a_report_is_a_csv_file(filled, path, query):
    file = get(filled, f"{API}/{path}.csv?{query}").text
    counts = [line.rpartition(",")[2] for line in file.splitlines()]
    assert sum(map(int, counts[1:])) == 3


def test_a_summary_names_the_largest_agent(filled):
    answer = get(filled, f"{API}/summary?from=2026-04-14&to=2026-04-14").json
    assert (answer["total"], answer["activeAgents"]) == (3, 2)
    assert answer["largestAgent"] == {"agentId": AGENT, "share": 2 / 3}


def test_the_status_counts_pending_events(filled, issue):
    issue("2026-04-15T09:00:00Z", times=2)
    issue("2026-04-15T09:00:00Z", times=3, tenant="org-b")
    assert get(filled, f"{API}/status").json["pendingEvents"] == 2


def test_an_agents_days_are_its_own(filled):
    data = get(filled, f"{API}/tokens?days=2&agentId={OTHER}").json["data"]
    assert [point["count"] for point in data] == [1, 0]


def test_a_long_report_is_sent_in_pieces(filled, monkeypatch):
    """In pieces, a report has the body and the headers that it has at once."""
    paths = [f"{API}/agents", f"{API}/agents.csv", f"{API}/agents?{RANGE}"]

    def answers():
        # Each is read at once, since a process sends two long reports at a time.
        return [(answer.data, answer) for answer in (get(filled, path) for path in paths)]

    short = answers()
    monkeypatch.setattr(usage, "MOST", 1)
    monkeypatch.setattr(base, "BATCH", 1)
    long = answers()
    assert [data for data, _ in long] == [data for data, _ in short]
    assert [one.headers["ETag"] for _, one in long] == [one.headers["ETag"] for _, one in short]
    pool = filled.application.extensions["analytics"].database.engine.pool
    assert pool.checkedout() == 0


def test_agents_are_listed_by_code_point_and_found_by_name(filled):
    names = [{"agentId": OTHER, "name": "%_\\"}, {"agentId": "\xe9", "name": "\U0001f600"}]
    assert filled.put("/api/v1/agents", json=names, headers=HEADERS).json == {"received": 2}
    listed = get(filled, "/api/v1/agents").json["data"]
    assert [(row["agentId"], row["name"], row["tokenCount"]) for row in listed] == [
        (AGENT, "billing", 2),
        (OTHER, "%_\\", 1),
        ("\xe9", "\U0001f600", 0),
    ]
    for found in ("_\\", "%_"):
        rows = filled.get("/api/v1/agents", query_string={"q": found}, headers=HEADERS).json
        assert [row["agentId"] for row in rows["data"]] == [OTHER]


def test_the_service_is_ready(client):
    assert get(client, "/ready").status_code == 200


def test_the_dashboard_and_its_files_show_the_numbers(filled):
    browser = Browser(filled)
    browser.sign_in()
    page = browser.get("/dashboard").text
    assert f'<span class="tenant"><bdi>{TENANT}</bdi></span>' in page
    assert "billing" in page
    files = ("tokens", "activity", "agents", "hours", "summary", "findings")
    days = "from=2026-04-14&to=2026-04-15&zone=Asia/Kolkata"
    for name in (*(f"{file}.csv" for file in files), f"agents.csv?{days}"):
        answer = browser.get(f"/dashboard/{name}")
        assert (answer.status_code, answer.mimetype) == (200, "text/csv")


def test_a_key_is_created_used_listed_and_revoked(filled):
    admin = bearer(scope="analytics:admin")
    made = filled.post("/api/v1/keys", json={"scopes": ["analytics:read"]}, headers=admin).json
    key = with_key(made["key"])
    assert filled.get(f"{API}/tokens?days=2", headers=key).json["data"][0]["count"] == 3
    assert filled.get("/api/v1/agents", headers=with_key(f"agk_{'u' * 44}")).status_code == 401
    (listed,) = filled.get("/api/v1/keys", headers=admin).json["data"]
    assert (listed["id"], listed["lastUsed"]) == (made["id"], "2026-04-15")
    revoked = filled.delete(f"/api/v1/keys/{made['id']}", headers=admin).json
    assert revoked == listed | {"revoked": "2026-04-15T12:30:00Z"}
    for unknown in ("x", "%00", "%FF", "A" * 12):
        assert filled.delete(f"/api/v1/keys/{unknown}", headers=admin).status_code == 404


def test_records_of_a_provider_are_stored(filled):
    body = "id,agentId,issuedAt\ne0,a,2026-04-14T09:00:00Z\nf0,a,2026-04-14T09:00:00Z\n"
    answer = filled.post(
        "/api/v1/events?format=csv", data=body, content_type="text/csv", headers=HEADERS
    )
    assert answer.json == {"received": 2, "accepted": 1, "duplicates": 1, "skipped": {}}


def test_findings_are_listed_and_marked(filled, database):
    (finding,) = stored(database, {})
    (shown,) = get(filled, f"{API}/findings?from=2026-01-01&limit=1").json["data"]
    assert shown == get(filled, f"{API}/findings/{finding.id}").json
    admin = bearer(scope="analytics:admin")
    marks = {"acknowledged": True, "note": "\U0001f600"}
    marked = filled.patch(f"{API}/findings/{finding.id}", json=marks, headers=admin).json
    assert (marked["status"], marked["note"]) == ("resolved", "\U0001f600")
    assert get(filled, f"{API}/findings").json["data"] == []


def test_settings_are_replaced(filled):
    admin = bearer(scope="analytics:admin")
    for lifetime in (60, 90):
        put = filled.put("/api/v1/settings", json={"tokenLifetime": lifetime}, headers=admin)
        assert put.json == filled.get("/api/v1/settings", headers=admin).json
        assert put.json["tokenLifetime"] == lifetime


def test_pages_of_days_agents_and_findings(filled, database):
    (finding,) = stored(database, {})
    browser = Browser(filled)
    browser.sign_in(scope="analytics:admin agents:write")
    day = browser.get("/dashboard/days/2026-04-14?zone=Asia/Kolkata")
    assert "2 with tokens" in day.text
    agent, path = f"/dashboard/agent?agentId={OTHER}", f"/dashboard/findings/{finding.id}"
    assert browser.send(agent, agent, name="\U0001f600", lifetime="60").status_code == 303
    assert "\U0001f600" in browser.get(agent).text
    assert browser.send(path, path, acknowledged="1", note="known").status_code == 303
    assert "marked as expected" in browser.get(path).text


def test_organizations_are_listed_for_operators(filled, database):
    summarize_organizations(database)
    operator = bearer(scope="analytics:read:any")
    (listed,) = filled.get("/api/v1/organizations", headers=operator).json["data"]
    assert listed["tenantId"] == TENANT
    browser = Browser(filled)
    browser.sign_in(scope="analytics:read:any")
    assert TENANT in browser.get("/dashboard/organizations").text
    assert TENANT in browser.get("/dashboard/organizations.csv").text


def test_a_share_link_is_made_opened_and_revoked(filled):
    admin = bearer(scope="analytics:admin")
    body = {"views": ["tokens"], "days": 7, "expires": "2026-07-01T00:00:00Z"}
    made = filled.post("/api/v1/share-links", json=body, headers=admin).json
    path = made["url"].removeprefix("http://localhost")
    assert filled.get(path).status_code == 200
    (listed,) = filled.get("/api/v1/share-links", headers=admin).json["data"]
    assert listed["opened"] == 1
    assert filled.delete(f"/api/v1/share-links/{made['id']}", headers=admin).status_code == 200
    assert filled.get(path).status_code == 404


def test_a_person_signs_in_is_renewed_chooses_and_is_signed_out(postgresql_url, monkeypatch):
    """Sessions are stored, renewed, changed and ended on PostgreSQL as on SQLite."""
    with ScriptedProvider(refreshes=True, claims={"orgs": ["org-a", "org-b"]}) as provider:
        settings = make_settings(postgresql_url, **provider.variables())
        with service_of(settings) as app:
            browser = Browser(app.test_client())
            choice = "/signin/organization"
            assert place(sign_in(provider, browser)) == choice
            assert browser.get(choice).status_code == 200
            browser.send(choice, choice, organization="org-b")
            real = time.time
            monkeypatch.setattr(time, "time", lambda: real() + 400)
            assert heading(browser) == "org-b"
            assert provider.forms("/token")[-1]["grant_type"] == "refresh_token"
            monkeypatch.setattr(time, "time", lambda: real() + 800)
            provider.refresh_tokens.clear()
            assert place(browser.get(DASHBOARD)).startswith(f"{provider.url}/authorize")
            monkeypatch.setattr(time, "time", real)
            sign_in(provider, browser)
            assert place(browser.get("/signin/form")) == DASHBOARD
            assert place(browser.get("/signin")) == DASHBOARD
            told = {"logout_token": provider.logout_token()}
            assert browser.client.post("/signout/backchannel", data=told).status_code == 200
            assert heading(browser) is None


HERE = {
    "agent.page", "agent.rename", "day.page", "finding.mark", "finding.page",
    "operator.file", "operator.page", "organizations.list_organizations",
    "share_links.create_link", "share_links.list_links", "share_links.revoke_link",
    "shared.page", "agents.list_agents", "analytics.agent_activity", "analytics.agent_usage",
    "analytics.counting_status", "analytics.hourly_tokens", "analytics.token_summary",
    "analytics.token_trend", "dashboard.page", "events.post_events", "exports.activity",
    "exports.agents", "exports.findings", "exports.hours", "exports.summary", "exports.tokens",
    "findings.list_findings",
    "findings.one_finding", "health.ready", "keys.create_key", "keys.list_keys",
    "keys.revoke_key", "marks.mark", "naming.name_agent", "naming.name_agents",
    "settings.replace_settings", "settings.show_settings", "provider.end_sessions",
    "signin.callback", "signin.choice", "signin.choose", "signin.form", "signin.page",
    "signin.paste", "signin.sign_out",
}  # fmt: skip
WITHOUT_DATABASE = {
    "docs.openapi", "docs.page", "health.health", "signin.ask_provider",
    "signin.link", "signin.slash", "signin.start", "static", "files.icon", "files.robots",
}  # fmt: skip


def test_a_new_route_is_tested_here_or_needs_no_database(app):
    endpoints = {rule.endpoint for rule in app.url_map.iter_rules()}
    assert endpoints == HERE | WITHOUT_DATABASE
