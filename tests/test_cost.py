"""The cost of work, counted and not timed: statements, scans, rows."""

import re
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.dialects import sqlite

from app.alerts import budgets
from app.reports import (
    activity,
    agent_list,
    agent_periods,
    findings,
    finer,
    hours,
    overview,
    so_far,
    status,
    summary,
    trend,
    usage,
    zone_days,
)
from app.reports import agents as directory
from app.reports.days import Days
from app.storage.database import Database
from app.storage.tables import hourly_issuance, metadata
from jobs.counting.adding import Window, add, add_to_all, counts
from jobs.counting.tables import SUMMARY_TABLES
from tests.support.settings import TENANT, make_settings
from tests.support.statements import statements
from tests.support.summaries import fill
from tests.support.tokens import bearer

RANGE = "from=2026-03-01&to=2026-04-10"
READS = [
    "tokens?days=30",
    f"tokens?{RANGE}&zone=Europe/Berlin",
    f"tokens?{RANGE}&agentId=a",
    "tokens/hourly",
    "agents/activity",
    "agents/activity?months=3",
    f"agents/activity?{RANGE}",
    "agents",
    "agents?limit=5",
    f"agents?{RANGE}&zone=Asia/Tokyo",
]
PAGE = {"after": "", "limit": 5, "kept_from": date.min}
SOME_DAYS = {"first": date(2026, 1, 3), "last": date(2026, 1, 9)}
BUDGETS = budgets.parameters(date(2026, 2, 20))
_ZONE = ZoneInfo("Europe/Berlin")
_DAYS = Days(date(2026, 2, 1), date(2026, 2, 28), _ZONE)
LISTED = {
    **agent_periods.parameters(_DAYS, 27, Days(date(2026, 1, 3), date(2026, 1, 29), _ZONE)),
    "first": _DAYS.utc_first,
    "last": _DAYS.utc_last,
    "limit": 12,
    "offset": 0,
    "show": "all",
    "sort": "change",
    "pattern": "%1%",
}
CELLS = {
    "offset_0": 1,
    "offset_1": 2,
    "changed_1": date(2026, 2, 3),
    "changed_hour_1": 1,
    "first": date(2026, 2, 1),
    "last": date(2026, 2, 9),
    "first_hour": 3,
    "last_hour": 4,
    "other_first": date(2026, 1, 1),
    "other_last": date(2026, 1, 9),
    "other_first_hour": 3,
    "other_last_hour": 4,
}
EDGES = {"before_begin": 7, "before_end": 15}
SO_FAR = so_far.parameters(
    so_far.windows(date(2026, 1, 9), None, datetime(2026, 1, 9, 12, tzinfo=UTC))
)
OFFSETS = zone_days.parameters(
    [zone_days.Offset(hour, 1) for hour in range(17_758_000, 17_758_003)]
)
EVENT = {"id": "1", "agentId": "a", "issuedAt": "2026-04-01T00:00:00Z"}


@pytest.fixture
def sent_for(client):
    """What the service sends."""
    with statements(client.application.extensions["analytics"].database) as sent:
        yield sent


@pytest.mark.parametrize("read", READS)
def test_a_read_is_one_statement(client, sent_for, issue, roll_up, read):
    issue("2026-04-01T00:00:00Z", times=20)
    roll_up()
    for _ in range(2):
        assert client.get(f"/api/v1/analytics/{read}", headers=bearer()).status_code == 200
    assert len(sent_for) == 2


@pytest.mark.parametrize("read", ["summary", f"summary?{RANGE}&zone=Asia/Tokyo", "status"])
def test_a_summary_and_a_status_are_two_statements(client, database, sent_for, read):
    fill(database, [(datetime(2026, 4, 1, tzinfo=UTC), "a")])
    assert client.get(f"/api/v1/analytics/{read}", headers=bearer()).status_code == 200
    assert len(sent_for) == 2


@pytest.mark.parametrize(
    "read", ["", "?limit=2", "?cursor=YQ&limit=2", "?q=a", "?sort=lastSeen", "?sort=lastSeen&q=a"]
)
def test_a_page_of_the_directory_is_one_statement(client, sent_for, issue, roll_up, read):
    for agent in "abc":
        issue("2026-04-01T00:00:00Z", agent=agent)
    roll_up()
    assert client.get(f"/api/v1/agents{read}", headers=bearer()).status_code == 200
    assert len(sent_for) == 1


@pytest.mark.parametrize("agents", [1, 500])
def test_names_are_one_statement_more_whatever_their_number(client, sent_for, agents):
    names = [{"agentId": f"{n}", "agentName": "n"} for n in range(agents)]
    batch = [EVENT | {"id": str(n)} | name for n, name in enumerate(names)]
    answer = client.post("/api/v1/events", json=batch, headers=bearer(scope="events:write"))
    assert answer.json["accepted"] == agents
    assert len(sent_for) == 2
    names = [{"agentId": f"{n}", "name": "n"} for n in range(agents)]
    answer = client.put("/api/v1/agents", json=names, headers=bearer(scope="agents:write"))
    assert answer.json == {"received": agents}
    assert len(sent_for) == 4  # the names, and one row of the audit log


@pytest.mark.parametrize("events", [1, 500])
def test_a_batch_is_one_statement_whatever_its_size(client, sent_for, events):
    batch = [EVENT | {"id": str(number)} for number in range(events)]
    answer = client.post("/api/v1/events", json=batch, headers=bearer(scope="events:write"))
    assert answer.json["accepted"] == events
    assert len(sent_for) == 1


def test_more_events_cost_a_run_no_more_statements(database, issue, roll_up):
    """A run executes as many statements for many events as for few."""
    numbers = []
    for events in (5, 2_000):
        issue("2026-04-01T00:00:00Z", times=events)
        with statements(database) as sent:
            assert roll_up().events == events
        numbers.append(len(sent))
    assert numbers[0] == numbers[1] < 25


def test_a_run_without_anything_to_do_counts_nothing(database, issue, roll_up):
    issue("2026-04-01T00:00:00Z")
    roll_up()
    with statements(database) as sent:
        roll_up()
    assert not [one for one in sent if "INSERT" in one or "GROUP BY" in one]


@pytest.fixture(scope="module")
def large(postgresql):
    """Many tenants, so that reading a whole table would be the wrong way to one of them."""
    name = postgresql.create()
    database = Database(make_settings(postgresql.at(name)).database_url)
    fill = """
        INSERT INTO {} SELECT 'tenant-' || tenant, {} FROM generate_series(1, 100) AS tenant, {}
    """
    parts = (
        ("daily_issuance", "date '2026-01-01' + day, 1", "generate_series(0, 89) AS day"),
        (
            "dow_hour_activity",
            "date '2026-01-01', dow, hour, 1",
            "generate_series(0, 6) AS dow, generate_series(0, 23) AS hour",
        ),
        (
            "monthly_agent_issuance",
            "date '2026-01-01', 'agent-' || agent, 1",
            "generate_series(1, 50) AS agent",
        ),
        ("agents", "'agent-' || agent, 'n', now()", "generate_series(1, 50) AS agent"),
        (
            "dow_hour_total",
            "dow, hour, 1",
            "generate_series(0, 6) dow, generate_series(0, 23) hour",
        ),
        (
            "hourly_issuance",
            "date '2026-01-01' + day, hour, 1",
            "generate_series(0, 59) AS day, generate_series(0, 23) AS hour",
        ),
        ("budgets", "'agent-' || agent, 'month', 9, now(), 'u'", "generate_series(1, 50) AS agent"),
        # Long ones, or the table would be one page.
        (
            "organization_settings",
            "repeat('x', 1900), null, null, now()",
            "generate_series(1, 1) AS one",
        ),
        (
            "daily_agent_issuance",
            "date '2026-01-01' + day, 'agent-' || agent, 1, 1",
            "generate_series(0, 59) AS day, generate_series(1, 50) AS agent",
        ),
    )
    for table, columns, source in parts:
        run(database, fill.format(table, columns, source))
    run(database, "ANALYZE")
    yield database
    database.dispose()
    postgresql.drop(name)


def run(database, statement):
    database.write(lambda connection: connection.execute(sa.text(statement)))


@pytest.mark.parametrize(
    ("statement", "parameters"),
    [
        (trend._TREND, {"first": date(2026, 1, 1), "last": date(2026, 1, 30)}),
        (activity._ACTIVITY, {}),
        (activity._RECENT_ACTIVITY, {"since": date(2026, 1, 1), "until": date(2026, 1, 1)}),
        (overview._statement(0, has_today=True), SOME_DAYS | SO_FAR),
        (overview._statement(3, has_today=True), SOME_DAYS | SO_FAR | OFFSETS),
        (usage._USAGE, {"month": date(2026, 1, 1)}),
        (usage._TOP_USAGE, {"month": date(2026, 1, 1), "limit": 5}),
        (usage._NAMED_USAGE, {"month": date(2026, 1, 1)}),
        (directory._PAGES["id", False], PAGE),
        (directory._PAGES["id", True], PAGE | {"pattern": "%1%"}),
        (directory._PAGES["lastSeen", False], PAGE | {"seen": date.max}),
        (hours._HOURS, SOME_DAYS),
        (trend._AGENT_DAYS, SOME_DAYS | {"agent_id": "agent-7"}),
        (usage._TOP_OF_DAYS[True], SOME_DAYS | {"limit": 5}),
        (usage._TOP_OF_DAYS[False], SOME_DAYS | {"limit": 5} | EDGES),
        (summary._LARGEST[False], SOME_DAYS | EDGES),
        (finer._LATEST_INCOMPLETE[hourly_issuance], SOME_DAYS),
        (agent_list._LIST, LISTED),
        (activity._days_cells(1), CELLS),
        (budgets._statement(has_agent=False), BUDGETS),
        (budgets._statement(has_agent=True), BUDGETS | {"agent_id": "agent-7"}),
    ],
    ids=[
        "trend",
        "heatmap",
        "heatmap of months",
        "overview",
        "overview in a zone",
        "agents",
        "top agents",
        "names of agents",
        "directory",
        "search",
        "latest agents",
        "hours",
        "days of an agent",
        "agents of days",
        "agents of days of a zone",
        "largest agent",
        "incomplete days",
        "list of agents",
        "hours of the week",
        "budgets",
        "budgets of an agent",
    ],
)
def test_no_read_goes_through_a_whole_table(large, statement, parameters):
    plan = explained(large, statement, parameters | {"tenant_id": "tenant-7"})
    scanned = {node["Relation Name"] for node in nodes(plan) if node["Node Type"] == "Seq Scan"}
    assert scanned <= {"rollup_state"}


def explained(database, statement, parameters):
    """The plan of a statement that was carried out, and then taken back."""
    text = f"EXPLAIN (ANALYZE, FORMAT JSON) {statement.compile(dialect=database.engine.dialect)}"
    with database.engine.connect() as connection:
        raw = connection.connection.cursor()
        found = raw.execute(text, statement.compile(dialect=pg.dialect()).params | parameters)
        (((plan,),),) = [found.fetchall()]
        connection.rollback()
    return plan[0]["Plan"]


def nodes(plan):
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def rows_read(plan, table="issuance_events"):
    """Rows that were taken from a table, also those that were then left out."""
    return sum(
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        for node in nodes(plan)
        if node.get("Relation Name") == table
    )


@pytest.mark.parametrize("parameters", [{"after": ""}, {"after": "agent-12"}])
def test_a_page_of_the_directory_reads_no_whole_month(postgresql_url, parameters):
    """A page reads as many agents of each month as it shows, and not all of them."""
    months, agents, limit = 12, 3_000, 20
    database = Database(make_settings(postgresql_url).database_url)
    fill = """
        INSERT INTO monthly_agent_issuance
        SELECT 'tenant-7', date '2026-01-01' + month * interval '1 month', 'agent-' || agent, 1
        FROM generate_series(1, {}) AS month, generate_series(1, {}) AS agent
    """
    run(database, fill.format(months, agents))
    run(database, "ANALYZE")
    values = parameters | {"tenant_id": "tenant-7", "limit": limit, "kept_from": date.min}
    statement = directory._PAGES["id", False]
    read = rows_read(explained(database, statement, values), "monthly_agent_issuance")
    assert months * limit < read < 5 * months * limit
    database.dispose()


def test_an_agents_days_read_no_other_agents(postgresql_url):
    """The days of one agent are found by the whole key, however many agents there are."""
    days, agents = 60, 500
    database = Database(make_settings(postgresql_url).database_url)
    days_of = f"generate_series(1, {days}) AS day"
    both = f"{days_of}, generate_series(1, {agents}) AS agent"
    row = "SELECT 'tenant-7', date '2026-01-01' + day"
    run(database, f"INSERT INTO daily_issuance {row}, 9 FROM {days_of}")
    run(
        database,
        f"INSERT INTO daily_agent_issuance {row}, 'agent-' || agent, 1, 1 FROM {both}",
    )
    run(database, "ANALYZE")
    values = {"tenant_id": "tenant-7", "agent_id": "agent-33", "first": date(2026, 1, 1)}
    values["last"] = date(2026, 3, 31)
    plan = explained(database, trend._AGENT_DAYS, values)
    assert days <= rows_read(plan, "daily_agent_issuance") <= 2 * days
    database.dispose()


def test_pending_events_are_found_by_their_ids(postgresql_url):
    """The status reads the pending events, and none of the organization's history."""
    database = Database(make_settings(postgresql_url).database_url)
    events = """
        INSERT INTO issuance_events (tenant_id, event_id, agent_id, issued_at)
        SELECT 'org-' || n % 20, gen_random_uuid(), 'agent', now()
        FROM generate_series(1, 20000) AS n
    """
    run(database, events)
    run(database, "ANALYZE")
    values = {"tenant_id": "org-7", "counted_upto": 19_900, "most": 10_000}
    assert rows_read(explained(database, status._PENDING, values)) <= 100
    database.dispose()


@pytest.mark.parametrize("history", [2_000, 20_000])
def test_a_run_reads_only_the_new_events(postgresql_url, history):
    """A run reads only the new events, for a short history and for a long one."""
    database = Database(make_settings(postgresql_url).database_url)
    events = """
        INSERT INTO issuance_events (tenant_id, event_id, agent_id, issued_at)
        SELECT '{}', gen_random_uuid(), 'agent', now() - n * interval '1 minute'
        FROM generate_series(1, {}) AS n
    """
    run(database, events.format(TENANT, history + 300))
    run(database, "ANALYZE")
    window = Window(history, history + 300)
    counted = counts(SUMMARY_TABLES, window)
    for count in counted.values():
        assert rows_read(explained(database, count.events, {})) == 300
    run_of_all = explained(database, add_to_all(SUMMARY_TABLES, window, {}), {})
    assert rows_read(run_of_all) == 300 * len(counted) == 600
    database.dispose()


def test_on_sqlite_nothing_scans_a_whole_table(sqlite_url):
    """On SQLite neither a report nor a run scans a whole table."""
    database = Database(make_settings(sqlite_url).database_url)
    reads = [trend._TREND, activity._ACTIVITY, activity._RECENT_ACTIVITY]
    reads += [usage._USAGE]
    pages = [usage._TOP_USAGE, usage._NAMED_USAGE, *directory._PAGES.values()]
    pages += [hours._HOURS, trend._AGENT_DAYS, status._PENDING, findings._ATTENTION]
    pages += [overview._statement(pieces, has_today=True) for pieces in (0, 3)]
    for statements_of_days in (usage._TOP_OF_DAYS, usage._OF_DAYS, summary._LARGEST):
        pages += statements_of_days.values()
    pages += finer._LATEST_INCOMPLETE.values()
    counted = counts(SUMMARY_TABLES, Window(5, 9))
    runs = [
        add(one, sqlite.Insert, count.events.subquery("counted"), count.by, kept={})
        for one in SUMMARY_TABLES
        for count in [counted[tuple(one.event_keys)]]
    ]
    # A subquery may be scanned: it has the rows of one tenant only.
    tables = "|".join(metadata.tables.keys() - {"rollup_state"})
    with database.reading() as connection:
        for statement in (*reads, *pages, *runs):
            compiled = statement.compile(dialect=sqlite.dialect())
            values = {name: datetime.now(UTC).isoformat() for name in compiled.params}
            plan = connection.exec_driver_sql(
                f"EXPLAIN QUERY PLAN {compiled}",
                tuple(values[name] for name in compiled.positiontup),
            )
            shown = "\n".join(row.detail for row in plan)
            assert not re.search(rf"SCAN ({tables})\b", shown), shown
    database.dispose()
