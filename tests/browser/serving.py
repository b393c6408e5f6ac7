"""The service on loopback for a browser: the application itself, at a time of the test's own."""

import itertools
import json
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from werkzeug.serving import WSGIRequestHandler, make_server

from app.factory import create_app
from app.intake.events import Event
from app.intake.store import store_events
from app.storage.database import Database
from app.storage.tables import rollup_state
from jobs.counting.run import run_rollup
from tests.support.settings import NOW, TENANT, make_settings
from tests.support.tokens import bearer

TIMEOUT_SECONDS = 60
MARKUP = "<img src=x onerror=alert(1)>"
# Days ago, and so many tokens.
SILENT, SPIKE = 14, {6: 60}


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

    def issue(self, *arguments: Any, **options: Any) -> None:
        """Store events; arguments as for :meth:`events`."""
        store_events(self.database, self.events(*arguments, **options))

    def events(
        self,
        ago: timedelta = timedelta(0),
        times: int = 1,
        *,
        agent: str = "agent-1",
        name: str | None = None,
        tenant: str = TENANT,
    ) -> list[Event]:
        """Events so long before the present, each with an id of its own."""
        at = self.now - ago
        ids = (f"event-{next(self._numbers)}" for _ in range(times))
        return [Event(tenant, event_id, agent, at, name) for event_id in ids]

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
    """Two months of an organization, counted: workdays and weekends, a spike, a silent day, a
    heavy agent beside a light one, and one whose name is markup."""
    events = site.events(timedelta(hours=2), 2, agent="markup", name=MARKUP)
    for days in range(63):
        ago = timedelta(days=days, hours=3, minutes=30)
        workday = (site.now - ago).isoweekday() < 6
        usual = 12 if workday else 3
        if days != SILENT:
            events += site.events(ago, SPIKE.get(days, usual), agent="batch", name="Batch")
            events += site.events(ago - timedelta(hours=days % 3), days % 4, agent="mailer")
    store_events(site.database, events)
    site.roll_up()
