"""Row-level security as docs/operate/postgresql.md sets it up: the database holds tenants apart."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from psycopg import sql
from psycopg.errors import InsufficientPrivilege

from app.factory import create_app
from jobs.counting.run import run_rollup
from jobs.counting.tables import SUMMARY_TABLES
from tests.support.api_keys import created, with_key
from tests.support.command_line import Runner, line, result
from tests.support.deployment import ROW_SECURITY, deployed
from tests.support.organizations import add_row
from tests.support.recount import assert_exact
from tests.support.roles import READS, insert, run_jobs, serve
from tests.support.settings import NOW, child_environ, make_settings
from tests.support.tokens import bearer

pytestmark = pytest.mark.slow

EVENTS = {"org-a": 2, "org-b": 3, "org-c": 0}


@pytest.fixture
def deployment(postgresql):
    """Two tenants' events, counted, under row-level security; a third has none."""
    with deployed(postgresql) as deployment:
        owner = deployment.connect("owner")
        for tenant, events in EVENTS.items():
            for _ in range(events):
                owner.execute(insert(tenant=tenant))
        run_rollup(deployment.database("job"), window_ids=1000, wait_seconds=0)
        deployment.run(ROW_SECURITY)
        yield deployment


@pytest.fixture
def read(deployment):
    """Every read of a tenant, as the service answers it; optionally with other variables."""
    apps = []

    def start(**variables):
        app = create_app(make_settings(deployment.url("web"), **variables), clock=lambda: NOW)
        apps.append(app)

        def read(tenant):
            client, headers = app.test_client(), bearer(tenant)
            paths = [*(f"/api/v1/analytics/{path}" for path in READS), "/api/v1/agents"]
            return [client.get(path, headers=headers).json for path in paths]

        return read

    yield start
    for app in apps:
        app.extensions["analytics"].database.dispose()


def seen(connection, table):
    """Each tenant's total in a summary table, as a raw query shows it."""
    query = sql.SQL("SELECT tenant_id, sum(issued)::int FROM {} GROUP BY tenant_id")
    return dict(connection.execute(query.format(sql.Identifier(table))).fetchall())


def name_tenant(connection, tenant):
    connection.execute("SELECT set_config('analytics.tenant_id', %s, false)", [tenant])


@pytest.mark.parametrize("table", [summary.table.name for summary in SUMMARY_TABLES])
def test_the_web_role_sees_the_rows_of_the_named_tenant_alone(deployment, table):
    web = deployment.connect("web")
    assert seen(web, table) == {}
    for tenant in ("org-a", "org-b"):
        name_tenant(web, tenant)
        assert seen(web, table) == {tenant: EVENTS[tenant]}
    for nobody in ("org-c", "", "org-_", "ORG-A"):
        name_tenant(web, nobody)
        assert seen(web, table) == {}
    web.execute("RESET analytics.tenant_id")
    assert seen(web, table) == {}


@pytest.mark.parametrize("table", [summary.table.name for summary in SUMMARY_TABLES])
def test_job_and_owner_see_every_tenant_and_other_roles_none(deployment, table):
    for role in ("job", "owner"):
        assert seen(deployment.connect(role), table) == {"org-a": 2, "org-b": 3}
    deployment.connect("owner").execute(f"GRANT SELECT ON {table} TO {deployment.role('idp')}")
    assert seen(deployment.connect("idp"), table) == {}


@pytest.mark.quick
def test_row_security_does_not_change_answers(deployment, read):
    """The service answers each tenant as it does without row security."""
    named = read(DATABASE_ROW_SECURITY="1")
    under_policies = {tenant: named(tenant) for tenant in EVENTS}
    for summary in SUMMARY_TABLES:
        deployment.connect("owner").execute(
            f"ALTER TABLE {summary.table.name} DISABLE ROW LEVEL SECURITY"
        )
    plain = read()
    assert under_policies == {tenant: plain(tenant) for tenant in EVENTS}
    assert [sum(day["count"] for day in under_policies[t][0]["data"]) for t in EVENTS] == [2, 3, 0]


def test_tenants_that_share_pooled_connections_never_meet(read):
    named, turns = read(DATABASE_ROW_SECURITY="1"), [*EVENTS] * 20
    with ThreadPoolExecutor(8) as threads:
        for tenant, (trend, *_) in zip(turns, threads.map(named, turns), strict=True):
            assert sum(day["count"] for day in trend["data"]) == EVENTS[tenant]


@pytest.mark.quick
def test_a_service_that_does_not_name_the_tenant_shows_zeros(read):
    trend, *others = read()("org-a")
    assert {day["count"] for day in trend["data"]} == {0}
    assert [other["data"] for other in others] == [[]] * len(others)


@pytest.fixture
def client(deployment):
    """The service in the web's role, that names tenants."""
    settings = make_settings(deployment.url("web"), DATABASE_ROW_SECURITY="1")
    app = create_app(settings, clock=lambda: NOW)
    yield app.test_client()
    app.extensions["analytics"].database.dispose()


def names(connection):
    rows = connection.execute("SELECT tenant_id, agent_id, name FROM agents ORDER BY 1, 2")
    return rows.fetchall()


def test_names_follow_the_token_on_any_connection(deployment, client):
    """Names are stored and read for the token's tenant on any connection."""
    for tenant in ("org-a", "org-b", "org-a"):
        headers = bearer(tenant, "agents:write")
        answer = client.put("/api/v1/agents/x", json={"name": tenant}, headers=headers)
        assert answer.status_code == 200
        for reader in EVENTS:  # and so the connection's last reader was another
            listed = client.get("/api/v1/agents", headers=bearer(reader)).json["data"]
            own = [each["name"] for each in listed if each["name"]]
            assert own in ([], [reader])
    owner = deployment.connect("owner")
    assert names(owner) == [("org-a", "x", "org-a"), ("org-b", "x", "org-b")]


def test_a_batch_of_many_tenants_names_the_agents_of_each(deployment, client):
    event = {"agentId": "x", "issuedAt": "2026-04-15T09:00:00Z"}
    for turn in range(2):
        events = [
            event
            | {"id": f"{turn}", "organizationId": tenant, "agentName": f"{tenant} {turn}"}
            | {"issuedAt": f"2026-04-15T09:00:0{turn}Z"}
            for tenant in EVENTS
        ]
        answer = client.post(
            "/api/v1/events", json=events, headers=bearer(scope="events:write:any")
        )
        assert answer.json["accepted"] == 3
    assert names(deployment.connect("owner")) == [(each, "x", f"{each} 1") for each in EVENTS]


def test_the_web_role_reaches_agents_of_named_tenants_only(deployment):
    """The web role sees and names only agents of the tenants that the connection names."""
    owner, web = deployment.connect("owner"), deployment.connect("web")
    insert_one = "INSERT INTO agents VALUES (%s, 'x', 'n', now())"
    for tenant in ("org-a", "org-b"):
        owner.execute(insert_one, [tenant])
    assert names(web) == []
    name_tenant(web, "org-a")
    assert names(web) == [("org-a", "x", "n")]
    assert web.execute("UPDATE agents SET name = 'y'").rowcount == 0
    with pytest.raises(InsufficientPrivilege):
        web.execute(insert_one, ["org-c"])
    web.execute("SELECT set_config('analytics.written', %s, false)", ["org-b\x1forg-c"])
    assert [row[0] for row in names(web)] == ["org-a", "org-b"]
    assert web.execute("UPDATE agents SET name = 'y'").rowcount == 1
    web.execute(insert_one, ["org-c"])
    with pytest.raises(InsufficientPrivilege):
        web.execute(insert_one, ["org-d"])
    expected = [("org-a", "x", "n"), ("org-b", "x", "y"), ("org-c", "x", "n")]
    assert names(owner) == expected


def test_the_web_role_sees_the_named_key_and_own_keys_only(deployment):
    """A key is looked up before its tenant is known, so its id must be named."""
    owner, web = deployment.database("owner"), deployment.connect("web")
    keys = [created(owner, tenant=tenant)[0] for tenant in ("org-a", "org-b")]
    listed = "SELECT tenant_id FROM api_keys"
    assert web.execute(listed).fetchall() == []
    web.execute("SELECT set_config('analytics.key_id', %s, false)", [keys[1].id])
    assert web.execute(listed).fetchall() == [("org-b",)]
    assert web.execute("UPDATE api_keys SET last_used = now()").rowcount == 1
    name_tenant(web, "org-a")
    assert sorted(web.execute(listed).fetchall()) == [("org-a",), ("org-b",)]
    assert web.execute("UPDATE api_keys SET revoked_at = now()").rowcount == 1
    with pytest.raises(InsufficientPrivilege):
        web.execute(
            "INSERT INTO api_keys (id, tenant_id, sha256, scopes, created_at)"
            " VALUES ('k', 'org-a', repeat('0', 64), 'events:write', now())"
        )


def test_a_client_has_its_organization_under_row_security(deployment, client):
    """The web role sees a client's organization only while the client is named."""
    owner, web = deployment.connect("owner"), deployment.connect("web")
    owner.execute("INSERT INTO client_organizations VALUES ('sync', 'org-b', false, now())")
    assert web.execute("SELECT * FROM client_organizations").fetchall() == []
    claims = {"client_id": "sync", "sub": "sync", "drop": "organization_id"}
    answer = client.get("/api/v1/analytics/tokens", headers=bearer(**claims))
    assert answer.json["tenantId"] == "org-b"


def test_keys_work_under_row_security(deployment, client):
    """Keys of several tenants on the same connections, one after the other."""
    owner = deployment.database("owner")
    texts = {tenant: created(owner, tenant=tenant)[1] for tenant in EVENTS}
    for tenant in [*EVENTS] * 2:
        trend = client.get("/api/v1/analytics/tokens", headers=with_key(texts[tenant])).json
        assert (trend["tenantId"], sum(day["count"] for day in trend["data"])) == (
            tenant,
            EVENTS[tenant],
        )
    unknown = client.get("/api/v1/agents", headers=with_key("agk_" + "u" * 44))
    assert unknown.status_code == 401


def test_operators_see_the_list_and_no_other_table(deployment, client):
    """The list needs the setting of operators, under which no other table shows a row."""
    owner, web = deployment.database("owner"), deployment.connect("web")
    for tenant in EVENTS:
        add_row(owner, tenant)
    listed = "SELECT tenant_id FROM organization_summaries ORDER BY 1"
    for nobody in ("", "org-a", "org-b"):
        name_tenant(web, nobody)
        assert web.execute(listed).fetchall() == []
    name_tenant(web, "\x1f")
    assert [row[0] for row in web.execute(listed)] == [*EVENTS]
    for summary in SUMMARY_TABLES:
        assert seen(web, summary.table.name) == {}
    headers = bearer(None, "analytics:read:any", drop="organization_id")
    for tenant in [*EVENTS] * 2:  # on the same connections, one after the other
        found = client.get("/api/v1/organizations", headers=headers).json["data"]
        assert [each["tenantId"] for each in found] == [*EVENTS]
        trend = client.get("/api/v1/analytics/tokens", headers=bearer(tenant)).json["data"]
        assert sum(day["count"] for day in trend) == EVENTS[tenant]


def test_an_import_names_agents_under_row_security(deployment):
    flask = Runner(child_environ(deployment.url("web"), DATABASE_ROW_SECURITY="1"))
    stdin = line("e1", agentName="billing")
    assert result(flask("events", "import", "--json", "-", stdin=stdin))["accepted"] == 1
    assert [row[2] for row in names(deployment.connect("owner"))] == ["billing"]


def test_web_and_jobs_do_all_their_work_under_row_security(deployment):
    assert assert_exact(deployment.database("owner")) == 5
    run, rebuilt, _ = run_jobs(deployment)
    assert (run.outcome, run.events, rebuilt.buckets) == ("done", 2, 5)
    assert sum(serve(deployment, DATABASE_ROW_SECURITY="1")) == 3
