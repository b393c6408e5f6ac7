"""docs/identity-providers/python.md: its lines work as they are written."""

import re
from types import SimpleNamespace
from typing import Any

import pytest

from agentidp_analytics.buffer import Limits
from agentidp_analytics.client import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, Client
from app.config.settings import ROOT
from tests.agentidp_analytics.conftest import KEY, FakeService

PAGE = (ROOT / "docs/identity-providers/python.md").read_text()


def test_the_lines_for_an_authlib_server_work(
    fake: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    (lines,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    monkeypatch.setenv("ANALYTICS_KEY", KEY)
    stored: list[Any] = []
    names: dict[str, Any] = {
        "AuthorizationServer": lambda app, query_client, save_token: save_token,
        "app": None,
        "query_client": None,
        "store_token": lambda token, request: stored.append(token),
    }
    exec(lines.replace("https://analytics.example.com", fake.url), names)
    client = SimpleNamespace(client_id="client-1", client_name="Billing")
    names["server"]({"access_token": "opaque"}, SimpleNamespace(client=client))
    analytics: Client = names["analytics"]
    analytics.close(60)
    (event,) = fake.stored.values()
    assert (event["agentId"], event["agentName"]) == ("client-1", "Billing")
    assert stored == [{"access_token": "opaque"}]


def test_the_numbers_of_the_page_are_the_defaults() -> None:
    limits = Limits()
    assert f"{limits.queued:,} events wait" in PAGE
    assert f"{limits.batch} at a time, or those of the last second" in PAGE
    assert f"for {limits.exit_seconds:.0f} seconds at most" in PAGE
    assert (limits.interval_seconds, FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS) == (1, 0.5, 60)
