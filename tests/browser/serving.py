"""The service on loopback for a browser: the application itself, at a time of the test's own."""

import itertools
import json
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from werkzeug.serving import WSGIRequestHandler, make_server

from app.db import Database
from app.events import Event
from app.factory import create_app
from app.ingest import record_events
from app.models import rollup_state
from jobs.rollup import run_rollup
from tests.conftest import NOW, TENANT, bearer, make_settings

TIMEOUT_SECONDS = 60


class Site:
    """A service while it serves.

    Attributes:
        now: the service's present, by which runs end as well.
        url: where it is, without a slash at the end.
    """

    def __init__(self, database_url: str, **variables: str) -> None:
        self.now = NOW
        settings = make_settings(database_url, **variables)
        app = create_app(settings, clock=lambda: self.now)
        self.database: Database = app.extensions["analytics"].database
        self._numbers = itertools.count()
        self._server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Silent)
        serve = self._server.serve_forever
        self._thread = threading.Thread(target=serve, args=(0.05,), name="site")
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def serving(self) -> Iterator["Site"]:
        self._thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self.database.dispose()

    def issue(
        self,
        when: datetime | timedelta = timedelta(0),
        times: int = 1,
        *,
        agent: str = "agent-1",
        name: str | None = None,
        tenant: str = TENANT,
    ) -> None:
        """Store events of an instant, or of so long before the present."""
        at = self.now - when if isinstance(when, timedelta) else when
        record_events(
            self.database,
            [Event(tenant, f"event-{next(self._numbers)}", agent, at, name) for _ in range(times)],
        )

    def roll_up(self) -> None:
        """Count what there is; the run ends at the service's present."""
        run_rollup(self.database, window_ids=1_000_000, wait_seconds=5)
        ended = sa.update(rollup_state).values(last_finished=self.now)
        self.database.write(lambda connection: connection.execute(ended))

    def answer(self, path: str, tenant: str = TENANT) -> Any:
        """What the API says: the ``data`` of a report."""
        request = urllib.request.Request(f"{self.url}/api/v1{path}", headers=bearer(tenant))
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            return json.load(response)["data"]


class Silent(WSGIRequestHandler):
    """Logs nothing: the application has a line for each request."""

    def log(self, *_arguments: Any) -> None:
        return


def fill(site: Site) -> None:
    """Two months of an organization: workdays at nine, weekends, a spike, a silent day, a heavy
    agent beside light ones, and one whose name is markup; all counted."""
    for ago in range(63):
        day = site.now - timedelta(days=ago, hours=3, minutes=30)
        workday = day.isoweekday() < 6
        if ago != 14:
            site.issue(
                day, {0: 5, 6: 60}.get(ago, 12 if workday else 3), agent="batch", name="Batch"
            )
        if workday and ago != 14:
            site.issue(day + timedelta(hours=ago % 3), ago % 4, agent="mailer")
    site.issue(timedelta(hours=2), 2, agent="markup", name=MARKUP)
    site.roll_up()


MARKUP = "<img src=x onerror=alert(1)>"
