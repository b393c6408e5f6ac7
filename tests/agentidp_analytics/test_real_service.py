"""The client library against the service itself, used by the issuer that is built on Authlib."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa
from flask import Flask
from werkzeug.serving import make_server

from agentidp_analytics.client import Client, Counts, Limits, Rejected
from app.factory import create_app
from app.storage.tables import agents, issuance_events
from tests.support.idp import Issuer, client_credentials
from tests.support.processes import free_port
from tests.support.settings import TENANT, make_settings
from tests.support.tokens import token
from tests.test_idp import sign_in

pytestmark = pytest.mark.slow

ENOUGH = 60.0
LIMITS = Limits(interval_seconds=0.05, exit_seconds=1.0)


@pytest.fixture
def app(database_url: str) -> Iterator[Flask]:
    app = create_app(make_settings(database_url))
    yield app
    app.extensions["analytics"].database.dispose()


@contextmanager
def serving(app: Flask, port: int = 0) -> Iterator[str]:
    server = make_server("127.0.0.1", port, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def issued(app: Flask) -> list[tuple[str, str]]:
    event = issuance_events.c
    wanted = sa.select(event.tenant_id, event.agent_id).order_by(event.agent_id)
    with app.extensions["analytics"].database.reading() as connection:
        return [tuple(row) for row in connection.execute(wanted)]


def test_the_tokens_of_an_authlib_issuer_are_stored(app):
    """Each token that the issuer hands out is one event, with the name of its agent."""
    with (
        serving(app) as url,
        Client(url, token(scope="events:write"), limits=LIMITS) as analytics,
        Issuer(analytics=analytics) as issuer,
    ):
        for _ in range(3):
            client_credentials(issuer)
        sign_in(issuer)
        assert analytics.flush(ENOUGH)
        assert analytics.counts == Counts(recorded=4, accepted=4)
    assert issued(app) == [(TENANT, "dashboard"), *[(TENANT, "machine")] * 3]
    with app.extensions["analytics"].database.reading() as connection:
        names = connection.execute(sa.select(agents.c.agent_id, agents.c.name)).all()
    assert sorted(names) == [("dashboard", "Dashboard"), ("machine", "Machine")]


def test_bad_events_do_not_block_the_others(app):
    """An event that is invalid, too large or of another organization is reported, alone."""
    rejected: list[Rejected] = []
    with serving(app) as url:
        client = Client(
            url, token(scope="events:write"), on_rejected=rejected.append, limits=LIMITS
        )
        for number in range(20):
            client.record_token(f"agent-{number:02}")
        client.record_token("bad\x7f")
        client.record_token("foreign", organization_id="org-b")
        client.record_token("x" * 300)
        client.record_token("surrogate \ud800")
        for number in range(20, 40):
            client.record_token(f"agent-{number:02}")
        client.close(ENOUGH)
    assert [agent for _, agent in issued(app)] == [f"agent-{number:02}" for number in range(40)]
    assert client.counts == Counts(recorded=44, accepted=40, rejected=4)
    reasons = {one.event["agentId"]: one.field for one in rejected}
    assert reasons == {
        "bad\x7f": "agentId",
        "foreign": "",
        "x" * 300: "agentId",
        "surrogate \ud800": "agentId",
    }


def test_a_restart_and_a_late_key_lose_nothing(app):
    """Events wait while the service is down and while their key is refused."""
    port = free_port()
    keys = [token(), token(scope="events:write")]
    client = Client(f"http://127.0.0.1:{port}", lambda: keys[0], limits=LIMITS)
    client.record_token("a")
    with serving(app, port):
        client.record_token("b")
        assert not client.flush(1.0)
        assert client.counts.waiting == 2
        del keys[0]
        assert client.flush(ENOUGH)
    client.record_token("c")
    with serving(app, port):
        assert client.flush(ENOUGH)
        client.close()
    assert [agent for _, agent in issued(app)] == ["a", "b", "c"]
    assert client.counts == Counts(recorded=3, accepted=3)
