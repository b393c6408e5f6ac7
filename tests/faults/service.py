"""A running service as a client sees it."""

import http.client
import itertools
import json
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from app.intake.events import Event
from tests.faults.ledger import Ledger, make_events, ndjson
from tests.faults.processes import PATIENCE_SECONDS, Workshop
from tests.support.processes import free_port
from tests.support.tokens import bearer

READS = ("tokens", "agents/activity", "agents")


class Answer(NamedTuple):
    """A response's status, its headers by lower-case name, and its JSON."""

    status: int
    headers: dict[str, str]
    body: Any

    @property
    def is_unavailable(self) -> bool:
        """A 503 in the envelope that says when to come again."""
        if self.status != 503:
            return False
        assert self.body["code"] == "SERVICE_UNAVAILABLE"
        assert int(self.headers["retry-after"]) > 0
        return True


class Service:
    """gunicorn on a port of its own; ``options`` go to its command line."""

    def __init__(self, workshop: Workshop, *options: str) -> None:
        self.port = free_port()
        workshop.variables["PORT"] = str(self.port)
        self.process = workshop.start("gunicorn", "wsgi:app", *options)
        eventually(self.is_ready)

    def is_ready(self) -> bool:
        try:
            return self.get("/ready").status == 200
        except OSError:
            return False

    def get(self, path: str) -> Answer:
        return self._ask("GET", path, bearer("org-0"))

    def read(self, report: str) -> Answer:
        return self.get(f"/api/v1/analytics/{report}")

    def post(self, events: Sequence[Event]) -> Answer:
        headers = bearer(None, "events:write:any", drop="organization_id")
        headers["Content-Type"] = "application/x-ndjson"
        return self._ask("POST", "/api/v1/events", headers, ndjson(events))

    def _ask(self, method: str, path: str, headers: dict[str, str], body: Any = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, json.load(response))
        finally:
            connection.close()


def eventually(condition: Callable[[], Any]) -> Any:
    """Its first true result; a slow machine is given time."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not (result := condition()):
        assert time.monotonic() < give_up, "waited in vain"
        time.sleep(0.05)
    return result


class Forwarder:
    """Posts new batches; an acknowledged one goes into its ledger."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.refused: list[list[Event]] = []
        self._dice, self._numbers = random.Random(7), itertools.count()

    def post(self, service: Service, size: int = 20) -> Answer:
        events = make_events(self._dice, f"batch-{next(self._numbers)}", size)
        answer = service.post(events)
        if answer.status == 202:
            assert answer.body["accepted"] == size
            self.ledger.acknowledge(events)
        else:
            assert answer.is_unavailable, answer
            self.refused.append(events)
        return answer

    def redeliver(self, service: Service) -> None:
        """Post again what was refused; none of these batches is half there."""
        for events in self.refused:
            answer = service.post(events)
            assert (answer.status, answer.body["accepted"]) in {(202, len(events)), (202, 0)}
            self.ledger.acknowledge(events)

    def is_counted(self, service: Service) -> bool:
        """Whether the reads show all of it by now, for one tenant."""
        answer = service.read("agents/activity")
        promised = sum(event.tenant_id == "org-0" for event in self.ledger)
        return answer.status == 200 and (
            sum(cell["count"] for cell in answer.body["data"]) == promised
        )
