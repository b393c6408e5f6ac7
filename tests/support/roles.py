"""The work of each role in docs/operate/postgresql.md, done once, to test its grants."""

import uuid
from dataclasses import replace
from datetime import date
from typing import Any

import msgspec
import psycopg
from flask.testing import FlaskClient

from app.alerts.digests import add_digest, organization_digest, receivers
from app.config.settings import Settings
from app.factory import create_app
from app.intake.events import Event
from app.intake.sources.positions import Spot, advance, create, note_failure
from app.reports.digest import parse_week
from app.storage.database import Database
from app.storage.schema import is_current
from jobs.counting.run import Run, run_rollup
from jobs.counting.status import rollup_status
from jobs.delivery import deliver as deliver_messages
from jobs.findings.claim import await_claim
from jobs.findings.storing import Change, store
from jobs.findings.task import judge_findings
from jobs.metrics import (
    FindingsCollector,
    OrganizationsCollector,
    OutboxCollector,
    SourcesCollector,
)
from jobs.organizations import summarize_organizations
from jobs.recount.rebuild import Rebuilt, rebuild
from jobs.recount.verify import verification
from jobs.retention import Purged, purge_events
from jobs.scheduler import claim_tick
from tests.support.api_keys import with_key
from tests.support.deployment import Deployment
from tests.support.findings import SPIKE
from tests.support.findings import stored as store_findings
from tests.support.organizations import add_row
from tests.support.pages import DASHBOARD, SIGNOUT, Browser, csrf_token, heading, place
from tests.support.scripted_idp import ScriptedProvider, sign_in
from tests.support.settings import NOW, TENANT, make_settings
from tests.support.tokens import bearer, token

APRIL = date(2026, 4, 1)
# An endpoint that nobody reaches, and messages to it.
ENDPOINT = (
    "INSERT INTO webhook_endpoints (tenant_id, id, url, format, min_severity, cooldown_minutes,"
    " created_at, created_by) VALUES ('org-a', 'w', 'https://127.0.0.1/', 'standard', 'info', 0,"
    " now(), 'u')"
)
MESSAGE = (
    "INSERT INTO webhook_messages (tenant_id, id, endpoint_id, kind, severity, finding_id,"
    " version, content, finding_status, detected_at, updated_at, status, created_at, next_at,"
    " expires_at) VALUES ('org-a', %s, 'w', 'finding.opened', 'warning', %s, 1, %s, 'open', now(),"
    " now(), 'waiting', %s, %s, now() + interval '1 day')"
)
CHOICE = "/signin/organization"
READS = (
    *("tokens?days=30", "agents/activity", "agents/activity?months=3", "agents?limit=5"),
    *("agents?from=2026-04-01&to=2026-04-15", "agents/activity?from=2026-04-01&to=2026-04-15"),
)

# One bucket is wrong then, one is missing, and one too many.
SPOIL = (
    "UPDATE daily_issuance SET issued = issued + 1 WHERE date = '2026-04-01'",
    "DELETE FROM dow_hour_activity WHERE month = '2026-04-01'",
    "INSERT INTO monthly_agent_issuance VALUES ('org-a', '2026-04-01', 'ghost', 1)"
    " ON CONFLICT DO NOTHING",
)


def insert(instant: str = "2026-04-01T09:00:00Z", tenant: str = TENANT) -> str:
    """How an identity provider writes an event; each has an id of its own."""
    return (
        "INSERT INTO issuance_events (tenant_id, event_id, agent_id, issued_at)"
        f" VALUES ('{tenant}', '{uuid.uuid4()}', 'agent-1', '{instant}') ON CONFLICT DO NOTHING"
    )


def deliver(deployment: Deployment) -> None:
    """The identity provider's work."""
    assert deployment.connect("idp").execute(insert()).rowcount == 1


def serve(deployment: Deployment, tenant: str = TENANT, **variables: str) -> list[int]:
    """The web's work: an event, names, marks and settings in, readiness, every read.

    Returns the tokens of each day.
    """
    app = create_app(make_settings(deployment.url("web"), **variables), clock=lambda: NOW)
    client, database = app.test_client(), app.extensions["analytics"].database
    owner = deployment.database("owner")
    add_row(owner, tenant)
    (stored,) = store_findings(owner, {"id": uuid.uuid4().hex}, tenant=tenant)
    owner.dispose()
    finding = f"/api/v1/analytics/findings/{stored.id}"
    event = {"id": str(uuid.uuid4()), "agentId": "agent-1", "issuedAt": "2026-04-15T09:00:00Z"}
    event["agentName"] = "said"
    headers = bearer(tenant, scope="events:write agents:write analytics:admin")
    try:
        use_key(client, headers)
        sent = client.post("/api/v1/events", json=event, headers=headers)
        assert (sent.status_code, sent.json.get("accepted")) == (202, 1)
        for name in ("set", None):
            named = client.put("/api/v1/agents/agent-2", json={"name": name}, headers=headers)
            assert named.json == {"agentId": "agent-2", "name": name}
        for seconds in (900, None):
            lifetime = {"name": "set", "tokenLifetime": seconds}
            named = client.put("/api/v1/agents/agent-3", json=lifetime, headers=headers)
            assert named.json == {"agentId": "agent-3"} | lifetime
        webhook = add_webhook(client, headers)
        marked = client.patch(finding, json={"acknowledged": True, "note": "n"}, headers=headers)
        assert (marked.status_code, marked.json.get("resolution")) == (200, "acknowledged")
        for _ in range(2):
            put = client.put("/api/v1/settings", json={"tokenLifetime": 900}, headers=headers)
            assert put.status_code == 200
        shown = client.get("/api/v1/settings", headers=headers)
        assert (shown.status_code, shown.json.get("tokenLifetime")) == (200, 900)
        use_webhook(client, headers, webhook)
        use_share_link(client, headers)
        use_budget(client, headers)
        read_settings_pages(client, tenant)
        use_page_session(deployment, tenant, **variables)
        assert client.get("/ready").status_code == 200
        listed = client.get("/api/v1/agents?q=said", headers=headers)
        assert listed.status_code == 200
        assert [agent["agentId"] for agent in listed.json["data"]] == ["agent-1"]
        for read in ("summary", "status", "tokens/hourly", "tokens?agentId=agent-1"):
            assert client.get(f"/api/v1/analytics/{read}", headers=headers).status_code == 200
        answers = [client.get(f"/api/v1/analytics/{read}", headers=headers) for read in READS]
        assert [answer.status_code for answer in answers] == [200] * len(READS)
        operator = bearer(None, scope="analytics:read:any", drop="organization_id")
        every = client.get("/api/v1/organizations", headers=operator)
        assert every.status_code == 200
        assert tenant in {each["tenantId"] for each in every.json["data"]}
        assert database.engine.pool.checkedin() == 1, "a request needs one connection"
    finally:
        database.dispose()
    return [point["count"] for point in answers[0].json["data"]]


def use_budget(client: FlaskClient, headers: dict[str, str]) -> None:
    """Set a budget, set it again, list it, delete it; nobody else's is listed."""
    path, body = "/api/v1/budgets", {"period": "day", "tokens": 5}
    for _ in range(2):
        assert client.put(path, json=body, headers=headers).status_code == 200
    listed = client.get(path, headers=headers).json["data"]
    assert [one["tokens"] for one in listed] == [5]
    other = bearer("org-of-nobody", "analytics:admin")
    assert client.get(path, headers=other).json["data"] == []
    assert client.delete(f"{path}?period=day", headers=headers).status_code == 200


def use_key(client: FlaskClient, headers: dict[str, str]) -> None:
    """Make a key, use it, list it, revoke it."""
    made = client.post("/api/v1/keys", json={"scopes": ["analytics:read"]}, headers=headers)
    assert made.status_code == 201
    key, key_id = with_key(made.json["key"]), made.json["id"]
    assert client.get("/api/v1/agents", headers=key).status_code == 200
    keys = client.get("/api/v1/keys", headers=headers).json["data"]
    assert [each["lastUsed"] for each in keys if each["id"] == key_id] == ["2026-04-15"]
    assert client.delete(f"/api/v1/keys/{key_id}", headers=headers).status_code == 200


def add_webhook(client: FlaskClient, headers: dict[str, str]) -> str:
    """Make an endpoint; returns its path."""
    made = client.post("/api/v1/webhooks", json={"url": "https://example.com/"}, headers=headers)
    assert made.status_code == 201
    return f"/api/v1/webhooks/{made.json['id']}"


def use_webhook(client: FlaskClient, headers: dict[str, str], path: str) -> None:
    """Look what an endpoint was told, change it, drop what waits, delete it."""
    listed = client.get(f"{path}/deliveries", headers=headers)
    assert listed.status_code == 200
    (message,) = listed.json["data"]
    assert message["event"] == "finding.resolved"
    assert client.post(f"{path}/rotate", headers=headers).status_code == 200
    assert client.patch(path, json={"enabled": False}, headers=headers).status_code == 200
    (message,) = client.get(f"{path}/deliveries", headers=headers).json["data"]
    assert message["status"] == "dropped"
    assert client.delete(path, headers=headers).status_code == 200


def use_share_link(client: FlaskClient, headers: dict[str, str]) -> None:
    """Make a link, open its page, list it, revoke it."""
    body = {"views": ["tokens"], "days": 7, "expires": "2026-07-01T00:00:00Z"}
    shared = client.post("/api/v1/share-links", json=body, headers=headers)
    assert shared.status_code == 201
    assert client.get(shared.json["url"]).status_code == 200
    listed = client.get("/api/v1/share-links", headers=headers).json["data"]
    assert [each["opened"] for each in listed if each["id"] == shared.json["id"]] == [1]
    link = f"/api/v1/share-links/{shared.json['id']}"
    assert client.delete(link, headers=headers).status_code == 200


def read_settings_pages(client: FlaskClient, tenant: str) -> None:
    """See each of them, with what was changed before in the audit log."""
    browser = Browser(client)
    browser.sign_in(token(tenant, "analytics:admin"))
    for name in ("", "/budgets", "/webhooks", "/links", "/keys", "/audit"):
        page = browser.get(f"/dashboard/settings{name}")
        assert page.status_code == 200, page.text
    assert "Share link revoked" in page.text


def use_page_session(deployment: Deployment, tenant: str, **variables: str) -> None:
    """Sign in at a provider, be renewed, choose an organization, send a form, sign out."""
    orgs = [tenant, f"{tenant}-other"]
    with ScriptedProvider(refreshes=True, claims={"orgs": orgs}) as provider:
        options = provider.variables(**variables)
        app = create_app(make_settings(deployment.url("web"), **options), clock=lambda: NOW)
        database, browser = app.extensions["analytics"].database, Browser(app.test_client())
        try:
            sign_in(provider, browser)
            assert place(browser.send(CHOICE, CHOICE, organization=tenant)) == DASHBOARD
            # A token of a moment, so that the next page renews the session.
            lapse(deployment)
            assert heading(browser) == tenant
            assert provider.forms("/token")[-1]["grant_type"] == "refresh_token"
            form = csrf_token(browser.get(DASHBOARD).text)
            lapse(deployment)
            provider.refresh_tokens.clear()
            sent = browser.post("/dashboard/agent?agentId=a", csrf_token=form, name="n")
            assert "Your form comes back" in sent.text
            sign_in(provider, browser)
            assert browser.get("/signin/form").status_code == 200
            renew_silently(deployment, provider, browser)
            browser.send(DASHBOARD, SIGNOUT)
            sign_in(provider, browser)
            told = {"logout_token": provider.logout_token()}
            assert browser.client.post("/signout/backchannel", data=told).status_code == 200
            assert heading(browser) is None
        finally:
            database.dispose()


def renew_silently(deployment: Deployment, provider: ScriptedProvider, browser: Browser) -> None:
    """Be renewed without a refresh token."""
    lapse(deployment)
    provider.refresh_tokens.clear()
    for _ in range(2):  # the first one finds that the token is refused
        url = place(browser.get(DASHBOARD))
    assert "prompt=none" in url
    back = provider.consent(url).removeprefix(browser.base)
    assert place(browser.get(back)) == DASHBOARD


def lapse(deployment: Deployment) -> None:
    """What the provider has said no longer holds."""
    owner = deployment.connect("owner")
    owner.execute("UPDATE page_sessions SET renew_at = now() - interval '1 second'")
    owner.close()


def read_source(deployment: Deployment) -> None:
    """The jobs' work with sources: a first position, events with a name, a later position."""
    database = deployment.database("job")
    spot = create(database, Spot(str(uuid.uuid4()), "", "okta", "{}"))
    events = [Event(TENANT, str(uuid.uuid4()), "agent-1", NOW, "named")]
    spot, stored = advance(database, spot, "{}", events)
    assert stored.accepted == 1
    note_failure(database, spot, "timeout")
    database.dispose()


def run_jobs(deployment: Deployment) -> tuple[Run, Rebuilt, Purged]:
    """The jobs' work, with something to do in each."""
    owner, database = deployment.connect("owner"), deployment.database("job")
    try:
        return _run_jobs(owner, database, make_settings(deployment.url("job")))
    finally:
        # It is repeated without each grant, and the server has few connections.
        database.dispose()
        owner.close()


def _run_jobs(
    owner: psycopg.Connection[Any], database: Database, settings: Settings
) -> tuple[Run, Rebuilt, Purged]:
    # A former try may have failed while it had the claim.
    owner.execute("UPDATE detection_state SET claimed_until = NULL")
    owner.execute("DELETE FROM usual")  # so that the organization is new to detection
    owner.execute(insert())
    owner.execute(insert("2020-01-01T00:00:00Z"))
    with database.reading() as connection:
        assert is_current(connection)
    assert database.write(lambda connection: claim_tick(connection, 0))
    run = run_rollup(database, window_ids=1000, wait_seconds=5)
    for statement in SPOIL:
        owner.execute(statement)
    rebuilt = rebuild(database, APRIL, APRIL)
    owner.execute(
        "UPDATE issuance_events SET received_at = issued_at WHERE issued_at < '2021-01-01'"
    )
    owner.execute("DELETE FROM webhook_endpoints")
    owner.execute("DELETE FROM webhook_messages")
    owner.execute(ENDPOINT)
    content = msgspec.json.encode(SPIKE).decode()
    for name, created, following in (("old", "2020-01-01", None), ("new", "now", "now")):
        owner.execute(MESSAGE, [name, SPIKE.id, content, created, following])
    purged = purge_events(database, retention_days=1000)
    assert owner.execute("SELECT id FROM webhook_messages").fetchall() == [("new",)]
    assert deliver_messages(database, settings).outcomes == {"failed": 1}
    assert any(one.samples for one in OutboxCollector(database).collect())
    with verification(database) as found:
        assert list(found.drift) == []
    owner.execute(
        "INSERT INTO source_positions (source, place, kind, position)"
        " VALUES ('s', '', 'okta', '{}') ON CONFLICT DO NOTHING"
    )
    assert any(one.samples for one in SourcesCollector(database).collect())
    assert judge_findings(database, settings).organizations
    assert any(one.samples for one in FindingsCollector(database).collect())
    owner.execute("DELETE FROM organization_summaries")
    owner.execute("DELETE FROM organization_summary_state")
    done = summarize_organizations(database)
    assert done is not None
    assert (done.outcome, done.organizations > 0) == ("done", True)
    assert any(one.samples for one in OrganizationsCollector(database).collect())
    _add_digest(owner, database, settings)
    claim = await_claim(database, 5)
    finding = replace(SPIKE, id=uuid.uuid4().hex)
    for each in (finding, replace(finding, observed=1)):
        change = Change(TENANT, each, is_new=each is finding)
        store(database, claim, [change], [], claim.now)
    claim.release(database)
    with database.reading() as connection:
        assert rollup_status(connection).pending == 0
    assert database.engine.pool.checkedin() == 1, "a job needs one connection"
    return run, rebuilt, purged


def _add_digest(owner: psycopg.Connection[Any], database: Database, settings: Settings) -> None:
    """A digest for an endpoint that has not got it."""
    owner.execute("DELETE FROM webhook_messages")
    owner.execute(
        "INSERT INTO webhook_endpoints (tenant_id, id, url, format, min_severity,"
        " cooldown_minutes, created_at, created_by, digest) VALUES"
        f" ('{TENANT}', 'digest', 'http://127.0.0.1/', 'standard', 'info', 60, now(), 'u',"
        " 'weekly') ON CONFLICT DO NOTHING"
    )
    week = parse_week("2026-W14")
    with database.snapshot() as connection:
        found = organization_digest(connection, TENANT, week, settings, NOW)
        to = receivers(connection, week, after=None, limit=10)
    added = database.write(lambda connection: add_digest(connection, found, to, NOW, None))
    assert added == len(to) == 1
