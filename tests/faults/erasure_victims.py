"""``python -m tests.faults.erasure_victims``: one deletion or erasure, slow enough to be killed."""

import sys
import time

from sqlalchemy.engine import make_url

from app.storage.database import Database
from jobs.erasure.agent import erase_agent
from jobs.erasure.organization import delete_organization
from jobs.findings import claim

BATCH_ROWS = 40
PAUSE_SECONDS = 0.02
# The next one need not wait long for the claim of one that was killed.
claim.CLAIM_SECONDS = 2


def pause(_done: int) -> None:
    time.sleep(PAUSE_SECONDS)


def main(url: str, tenant_id: str, agent_id: str = "") -> None:
    database = Database(make_url(url))
    if agent_id:
        erase_agent(database, tenant_id, agent_id, by="victim", on_events=pause)
    else:
        delete_organization(database, tenant_id, by="victim", batch_rows=BATCH_ROWS, on_rows=pause)
    database.dispose()


if __name__ == "__main__":
    main(*sys.argv[1:])
