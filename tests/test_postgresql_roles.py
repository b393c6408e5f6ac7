"""The roles of docs/operate/postgresql.md: each can do its work, and nothing else."""

import runpy

import psycopg
import pytest
from psycopg.errors import GeneratedAlways, IdleInTransactionSessionTimeout, InsufficientPrivilege
from sqlalchemy.exc import DBAPIError

from app.cli.demo import load_demo
from app.config.settings import ROOT
from app.errors import SettingsError
from app.storage.schema import refuse_other_schema
from jobs.counting.run import run_rollup
from jobs.retention import Purged
from tests.support.command_line import Runner, assert_one_clear_error, line, result
from tests.support.deployment import (
    ADMINISTRATOR,
    BEFORE_SCHEMA,
    GRANTS,
    PAGE,
    ROW_SECURITY,
    SOURCES,
    Deployment,
    blocks,
    deployed,
)
from tests.support.recount import assert_exact
from tests.support.roles import deliver, insert, read_source, run_jobs, serve
from tests.support.settings import NOW, child_environ, environment, make_settings

pytestmark = pytest.mark.slow

GRANTED = """
    SELECT format('%%s ON %%s %%s', privilege_type,
                  CASE relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, oid::regclass)
    FROM pg_class, aclexplode(relacl) WHERE grantee = %(role)s::regrole
    UNION ALL
    SELECT format('%%s (%%I) ON TABLE %%s', privilege_type, attname, attrelid::regclass)
    FROM pg_attribute, aclexplode(attacl) WHERE grantee = %(role)s::regrole
    UNION ALL
    SELECT format('%%s ON DATABASE %%I', privilege_type, datname)
    FROM pg_database, aclexplode(datacl)
    WHERE grantee = %(role)s::regrole AND datname = current_database()
"""
COLUMNS = "tenant_id, event_id, agent_id, issued_at"
SHOW_TIMEOUT = "SHOW idle_in_transaction_session_timeout"
VALUES = "'org-a', 'e1', 'agent-1', now()"


@pytest.fixture
def deployment(postgresql):
    with deployed(postgresql) as deployment:
        yield deployment


@pytest.fixture(scope="module")
def untouched(postgresql):
    """For what is refused, and so changes nothing."""
    with deployed(postgresql) as deployment:
        yield deployment


def run_now(deployment: Deployment):
    return run_rollup(deployment.database("job"), window_ids=1000, wait_seconds=0)


def succeeds(work, deployment: Deployment) -> bool:
    try:
        work(deployment)
    except (AssertionError, DBAPIError, psycopg.Error):
        return False
    return True


@pytest.mark.quick
def test_what_a_role_may_not_do_is_no_matter_of_the_schema(untouched):
    done = Runner(child_environ(untouched.url("idp")))("rollup", "status")
    error = "Error: database: permission denied for table rollup_state"
    assert assert_one_clear_error(done) == error


@pytest.mark.quick
def test_every_sql_block_of_the_page_is_run():
    headings = [heading for heading, _ in blocks()]
    assert headings == [*BEFORE_SCHEMA, *GRANTS[:2], SOURCES, GRANTS[2], ROW_SECURITY]


@pytest.mark.quick
def test_the_service_works_with_each_process_in_its_own_role(deployment):
    assert serve(deployment)[-15:] == [0] * 15
    deliver(deployment)
    run, rebuilt, purged = run_jobs(deployment)
    assert (run.outcome, run.events) == ("done", 4)
    assert (rebuilt.buckets, rebuilt.correction) == (3, 1)
    assert purged == Purged(1, finished=True)
    assert serve(deployment)[-15:] == [2, *[0] * 13, 1]
    assert run_now(deployment).events == 1
    assert serve(deployment)[-15:] == [2, *[0] * 13, 2]


@pytest.mark.timeout(900)  # all work of a role, twice for each grant
@pytest.mark.parametrize(
    ("role", "work"),
    [("web", serve), ("job", run_jobs), ("idp", deliver)],
    ids=["web", "job", "idp"],
)
def test_every_grant_is_needed(deployment, role, work):
    owner, name = deployment.connect("owner"), deployment.role(role)
    granted = [grant for (grant,) in owner.execute(GRANTED, {"role": name})]
    assert len(granted) >= 5
    for grant in granted:
        owner.execute(f"REVOKE {grant} FROM {name}")
        assert not succeeds(work, deployment), f"{grant} is not needed"
        owner.execute(f"GRANT {grant} TO {name}")
        work(deployment)


def test_every_grant_for_sources_is_needed(deployment):
    """The jobs' role follows and pulls sources with these grants, and with none less."""
    assert not succeeds(read_source, deployment)
    role = deployment.role("job")
    owner = deployment.connect("owner")
    before = set(owner.execute(GRANTED, {"role": role}))
    deployment.run(SOURCES)
    read_source(deployment)
    granted = [grant for (grant,) in set(owner.execute(GRANTED, {"role": role})) - before]
    assert len(granted) >= 9
    for grant in granted:
        owner.execute(f"REVOKE {grant} FROM {role}")
        assert not succeeds(read_source, deployment), f"{grant} is not needed"
        owner.execute(f"GRANT {grant} TO {role}")
        read_source(deployment)


def test_grants_may_be_repeated(deployment):
    for heading in GRANTS:
        deployment.run(heading)
    serve(deployment)
    run_jobs(deployment)


@pytest.mark.parametrize("role", ["web", "job"])
def test_production_refuses_another_schema_in_any_role(deployment, role):
    """In production every role refuses a schema that is not current."""
    settings = make_settings(deployment.url(role), APP_ENV="production")
    refuse_other_schema(settings)
    deployment.connect("owner").execute("UPDATE alembic_version SET version_num = '0001'")
    with pytest.raises(SettingsError, match="flask db upgrade"):
        refuse_other_schema(settings)


def test_schema_public_is_closed_where_it_was_open(deployment):
    public = BEFORE_SCHEMA[1]
    in_database = deployment.connect(ADMINISTRATOR)
    in_database.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")  # as before PostgreSQL 15
    deployment.connect("idp").execute("CREATE TABLE open ()")
    deployment.run(public, ADMINISTRATOR)
    with pytest.raises(InsufficientPrivilege):
        deployment.connect("idp").execute("CREATE TABLE closed ()")


def test_the_page_counts_the_connections_of_gunicorns_threads(monkeypatch, postgresql_url):
    for name, value in environment(postgresql_url).items():
        monkeypatch.setenv(name, value)
    settings = runpy.run_path(str(ROOT / "gunicorn.conf.py"))
    workers, threads = settings["workers"], settings["settings"].web_threads
    assert f"{workers} \N{MULTIPLICATION SIGN} {threads} = {workers * threads}" in PAGE.read_text()


def test_import_needs_no_more_than_the_web_role(deployment):
    flask = Runner(child_environ(deployment.url("web")))
    named = line("e1", agentName="billing")
    totals = result(flask("events", "import", "--json", "-", stdin=named + line("e1")))
    assert (totals["accepted"], totals["duplicates"]) == (1, 1)


def test_demo_data_is_the_owners_to_load(deployment):
    with pytest.raises(DBAPIError, match="permission denied for table issuance_events"):
        load_demo(deployment.database("web"), NOW)
    assert load_demo(deployment.database("owner"), NOW).accepted > 0


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE t (a int)",
        "CREATE TEMPORARY TABLE t (a int)",
        "CREATE SCHEMA s",
        "ALTER TABLE daily_issuance ADD COLUMN a int",
        "DROP TABLE rollup_runs",
        "TRUNCATE issuance_events",
        "SELECT agent_id FROM issuance_events",
        "SELECT event_id FROM issuance_events",
        "SELECT issued_at FROM issuance_events",
        "SELECT last_value FROM issuance_events_id_seq",
        "UPDATE issuance_events SET agent_id = 'x'",
        "DELETE FROM issuance_events",
        "UPDATE daily_issuance SET issued = 0",
        "INSERT INTO daily_issuance VALUES ('org-a', '2026-04-01', 1)",
        "DELETE FROM monthly_agent_issuance",
        "UPDATE rollup_state SET counted_upto = 0",
        "SELECT 1 FROM rollup_corrections",
        "UPDATE alembic_version SET version_num = 'x'",
        "UPDATE agents SET tenant_id = 'x'",
        "UPDATE agents SET agent_id = 'x'",
        "DELETE FROM agents",
        "TRUNCATE agents",
        "UPDATE api_keys SET scopes = 'analytics:admin'",
        "UPDATE api_keys SET sha256 = 'x'",
        "UPDATE api_keys SET tenant_id = 'x'",
        "DELETE FROM api_keys",
        "INSERT INTO client_organizations VALUES ('c', 'org-a', false, now())",
        "UPDATE client_organizations SET tenant_id = 'x'",
        "DELETE FROM client_organizations",
        "UPDATE audit_log SET actor = 'x'",
        "DELETE FROM audit_log",
        "INSERT INTO audit_log (id, changed_at, actor, action, subject)"
        " OVERRIDING SYSTEM VALUE VALUES (1, now(), 'a', 'b', 'c')",
    ],
)
def test_the_web_role_may_not_change_schema_or_counts(untouched, statement):
    """The web role may not change the schema or a count, or read an event's agent, id or time."""
    with pytest.raises(InsufficientPrivilege):
        untouched.connect("web").execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        insert(),
        "UPDATE issuance_events SET agent_id = 'x'",
        "TRUNCATE issuance_events",
        "SELECT setval('issuance_events_id_seq', 1)",
        "SELECT nextval('issuance_events_id_seq')",
        "CREATE TABLE t (a int)",
        "ALTER TABLE daily_issuance ADD COLUMN a int",
        "DROP TABLE rollup_runs",
        "INSERT INTO rollup_state (id, counted_upto) VALUES (2, 0)",
        "DELETE FROM rollup_state",
        "UPDATE rollup_corrections SET new_total = 0",
        "DELETE FROM rollup_corrections",
        "DELETE FROM purged_months",
        "UPDATE alembic_version SET version_num = 'x'",
        "UPDATE agents SET name = 'x'",
        "SELECT 1 FROM api_keys",
        "UPDATE api_keys SET revoked_at = NULL",
        "UPDATE audit_log SET actor = 'x'",
    ],
)
def test_the_job_role_may_not_add_events_or_change_schema(untouched, statement):
    """The job role may not add an event, or change the schema or the journal."""
    with pytest.raises(InsufficientPrivilege):
        untouched.connect("job").execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        f"INSERT INTO issuance_events ({COLUMNS}, received_at) VALUES ({VALUES}, now())",
        f"INSERT INTO issuance_events (id, {COLUMNS}) OVERRIDING SYSTEM VALUE VALUES (1, {VALUES})",
        f"INSERT INTO issuance_events ({COLUMNS}) VALUES ({VALUES}) RETURNING id",
        f"INSERT INTO issuance_events ({COLUMNS}) VALUES ({VALUES})"
        " ON CONFLICT (tenant_id, event_id) DO NOTHING",
        "SELECT 1 FROM issuance_events",
        "SELECT 1 FROM daily_issuance",
        "SELECT 1 FROM rollup_state",
        "SELECT 1 FROM agents",
        "SELECT 1 FROM api_keys",
        "INSERT INTO agents VALUES ('org-a', 'agent-1', 'n', now())",
        "SELECT last_value FROM issuance_events_id_seq",
        "SELECT nextval('issuance_events_id_seq')",
        "UPDATE issuance_events SET agent_id = 'x'",
        "DELETE FROM issuance_events",
        "CREATE TABLE t (a int)",
        "CREATE TEMPORARY TABLE t (a int)",
    ],
)
def test_a_direct_writer_adds_events_and_nothing_else(untouched, statement):
    with pytest.raises(InsufficientPrivilege):
        untouched.connect("idp").execute(statement)


@pytest.mark.quick
def test_a_direct_writer_cannot_choose_an_id(untouched):
    with pytest.raises(GeneratedAlways):
        untouched.connect("idp").execute(
            f"INSERT INTO issuance_events (id, {COLUMNS}) VALUES (1, {VALUES})"
        )


def test_a_direct_writers_redelivery_is_ignored(deployment):
    writer, once = deployment.connect("idp"), insert()
    assert [writer.execute(once).rowcount for _ in range(2)] == [1, 0]


@pytest.mark.parametrize("sees_statistics", [True, False])
def test_a_run_names_and_awaits_a_writer_of_another_role(deployment, sees_statistics):
    """A run names and awaits a writer, with or without the right to see statistics."""
    if not sees_statistics:
        deployment.administer(f"REVOKE pg_read_all_stats FROM {deployment.role('job')}")
    slow = deployment.connect("idp", autocommit=False, application_name="keycloak")
    slow.execute(insert())
    deliver(deployment)
    held_up = run_now(deployment)
    (writer,) = held_up.writers
    assert (held_up.outcome, held_up.events) == ("held_up", 0)
    assert (writer.pid, writer.application) == (slow.info.backend_pid, "keycloak")
    assert (writer.since is not None) == sees_statistics
    slow.commit()
    assert run_now(deployment).events == 2
    assert assert_exact(deployment.database("owner")) == 2


def test_a_writer_that_leaves_its_transaction_open_is_ended(deployment):
    (setting,) = (part for part in deployment.sql(BEFORE_SCHEMA[0]) if "idle_in" in part)
    assert deployment.connect("idp").execute(SHOW_TIMEOUT).fetchone() == ("1min",)
    deployment.administer(setting.replace("'60s'", "'200ms'"))
    idle = deployment.connect("idp", autocommit=False)
    idle.execute(insert())
    deliver(deployment)
    run = run_rollup(deployment.database("job"), window_ids=1000, wait_seconds=20)
    assert (run.outcome, run.events) == ("done", 1)
    with pytest.raises(IdleInTransactionSessionTimeout):
        idle.commit()
