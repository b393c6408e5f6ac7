"""Row-level security as docs/postgresql.md sets it up: the database holds tenants apart."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from psycopg import sql

from app.factory import create_app
from jobs.rollup import run_rollup
from jobs.rollups import ROLLUPS
from tests.conftest import NOW, bearer, make_settings
from tests.deployment import ROW_SECURITY, deployed
from tests.recount import assert_exact
from tests.roles import READS, insert, run_jobs, serve

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
            return [client.get(f"/api/v1/analytics/{path}", headers=headers).json for path in READS]

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


@pytest.mark.parametrize("table", [rollup.table.name for rollup in ROLLUPS])
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


@pytest.mark.parametrize("table", [rollup.table.name for rollup in ROLLUPS])
def test_job_and_owner_see_every_tenant_and_other_roles_none(deployment, table):
    for role in ("job", "owner"):
        assert seen(deployment.connect(role), table) == {"org-a": 2, "org-b": 3}
    deployment.connect("owner").execute(f"GRANT SELECT ON {table} TO {deployment.role('idp')}")
    assert seen(deployment.connect("idp"), table) == {}


def test_the_service_answers_each_tenant_as_without_row_security(deployment, read):
    named = read(DATABASE_ROW_SECURITY="1")
    under_policies = {tenant: named(tenant) for tenant in EVENTS}
    for rollup in ROLLUPS:
        deployment.connect("owner").execute(
            f"ALTER TABLE {rollup.table.name} DISABLE ROW LEVEL SECURITY"
        )
    plain = read()
    assert under_policies == {tenant: plain(tenant) for tenant in EVENTS}
    assert [sum(day["count"] for day in under_policies[t][0]["data"]) for t in EVENTS] == [2, 3, 0]


def test_tenants_that_share_pooled_connections_never_meet(read):
    named, turns = read(DATABASE_ROW_SECURITY="1"), [*EVENTS] * 20
    with ThreadPoolExecutor(8) as threads:
        for tenant, (trend, *_) in zip(turns, threads.map(named, turns), strict=True):
            assert sum(day["count"] for day in trend["data"]) == EVENTS[tenant]


def test_a_service_that_does_not_name_the_tenant_shows_zeros(read):
    trend, *others = read()("org-a")
    assert {day["count"] for day in trend["data"]} == {0}
    assert [other["data"] for other in others] == [[]] * len(others)


def test_web_and_jobs_do_all_their_work_under_row_security(deployment):
    assert assert_exact(deployment.database("owner")) == 5
    run, rebuilt, _ = run_jobs(deployment)
    assert (run.outcome, run.events, rebuilt.buckets) == ("done", 2, 5)
    assert sum(serve(deployment, DATABASE_ROW_SECURITY="1")) == 3
