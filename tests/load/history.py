"""The past that a load run begins with, so that reads have something to show."""

from app.intake.events import Event
from app.storage.database import Database
from tests.faults.ledger import raw_events
from tests.load.traffic import Scale

# The hour follows from agent and day, so that the events spread over the week's cells.
INSERT = """
    INSERT INTO issuance_events (tenant_id, event_id, agent_id, issued_at)
    SELECT 'org-' || tenant,
           concat_ws('-', 'history', agent, day),
           'agent-' || agent,
           now() - make_interval(days => day, hours => (7 * agent + 5 * day) %% 24)
    FROM generate_series(1, %(days)s) AS day,
         generate_series(0, %(tenants)s - 1) AS tenant,
         generate_series(0, %(agents)s - 1) AS agent
"""


def add_history(database: Database, scale: Scale) -> list[Event]:
    """Store it; returns what must stay."""
    size = {"tenants": scale.tenants, "agents": scale.agents, "days": scale.days}
    added = database.write(lambda connection: connection.exec_driver_sql(INSERT, size).rowcount)
    history = list(raw_events(database))
    assert len(history) == added
    return history


def tidy(database: Database) -> None:
    """What has long been done where a history has grown slowly."""
    with database.reading() as connection:
        connection.exec_driver_sql("VACUUM (ANALYZE)")
        connection.exec_driver_sql("CHECKPOINT")


def server_version(database: Database) -> str:
    with database.reading() as connection:
        version: str = connection.exec_driver_sql("SHOW server_version").scalar_one()
    return version.split(maxsplit=1)[0]
