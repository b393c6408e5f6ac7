"""flask webhooks: the same as by the API, and sending at once."""

import json

import pytest

from tests.support.receivers import receiving
from tests.support.settings import TENANT

ORG = ("--organization", TENANT)


@pytest.fixture
def webhooks(flask):
    def webhooks(*arguments, code=0, **variables):
        done = flask("webhooks", *arguments, **variables)
        assert done.returncode == code, done.stderr
        return done.stdout

    return webhooks


def test_an_endpoint_lives_and_dies(webhooks):
    made = json.loads(
        webhooks(
            *("add", *ORG, "--kind", "spike", "--quiet", "22:00-6:00 Europe/Berlin", "--json"),
            *("--cooldown", "5", "--min-severity", "warning", "https://example.com/"),
        )
    )
    assert made["secret"].startswith("whsec_")
    assert made["quiet"] == {"from": "22:00", "to": "06:00", "zone": "Europe/Berlin"}
    assert made["id"] in webhooks("list", *ORG)
    assert json.loads(webhooks("list", *ORG, "--json"))["data"][0]["kinds"] == ["spike"]
    rotated = webhooks("rotate", *ORG, made["id"])
    assert "whsec_" in rotated
    assert made["secret"] not in rotated
    assert "waits" in webhooks("test", *ORG, made["id"])
    assert "test" in webhooks("deliveries", *ORG, made["id"])
    assert "deleted" in webhooks("delete", *ORG, made["id"])
    assert webhooks("list", *ORG).strip() == "no endpoints"


def test_an_unknown_endpoint_is_named(webhooks):
    for command in ("rotate", "delete", "test", "deliveries"):
        webhooks(command, *ORG, "AAAAAAAAAAAA", code=1)
    webhooks("add", *ORG, "http://example.com/", code=1)
    webhooks("add", *ORG, "--quiet", "always", "https://example.com/", code=2)


def test_deliver_sends_what_is_due(webhooks):
    local = {"WEBHOOK_ALLOW": "127.0.0.0/8"}
    with receiving() as receiver:
        made = json.loads(webhooks("add", *ORG, receiver.url, "--json", **local))
        webhooks("test", *ORG, made["id"])
        sent = json.loads(webhooks("deliver", "--json", **local))
    assert sent == {"delivered": 1, "failed": 0, "parked": 0, "dropped": 0}
    assert len(receiver.seen) == 1
    log = json.loads(webhooks("deliveries", *ORG, made["id"], "--json"))["data"]
    assert log[0]["status"] == "delivered"
