"""The API reference page: contents, commands, errors once, and its size."""

import gzip
import html
import re
import shlex
from itertools import pairwise

import pytest

from app.web.api.operations import Group
from tests.support.findings import stored
from tests.support.tokens import bearer

SCOPES = "events:write agents:write analytics:admin analytics:read:any"
MOST_BYTES = 40_000
SUCCESS = {200, 201, 202, 204}
LOCAL = {"base_url": "http://127.0.0.1:3000"}


@pytest.fixture
def page(client):
    return client.get("/docs", **LOCAL).text


@pytest.fixture
def described(client):
    return client.get("/api/v1/openapi.json").json


def operations(described):
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def called(client, command, admin):
    """The status that a command gets, with a token that has every scope."""
    words = shlex.split(command)
    assert words[:2] == ["curl", "-sS"]
    (address,) = (word for word in words if word.startswith("http"))
    assert address.startswith("http://127.0.0.1:3000/")
    options = {"-X": ["GET"], "-H": [], "-d": [None]}
    for option, value in pairwise(words):
        options.get(option, []).insert(0, value)
    headers = dict(value.split(": ", 1) for value in options["-H"])
    if "Authorization" in headers:
        assert headers["Authorization"] == "Bearer $TOKEN"
        headers |= admin
    path = address.removeprefix("http://127.0.0.1:3000")
    answer = client.open(path, method=options["-X"][0], headers=headers, data=options["-d"][0])
    return answer.status_code


def test_every_call_is_once_in_its_group(page, described):
    """Each call is a part of the group that it declares, and its CSV is only a line of it."""
    order = {group.title: at for at, group in enumerate(Group)}
    assert [tag["name"] for tag in described["tags"]] == list(order)
    parts = dict(re.findall(r'<h2 id="group-\w+">(.*?)</h2>(.*?)</section>', page, flags=re.DOTALL))
    assert sorted(parts, key=order.__getitem__) == list(parts)
    for method, path, operation in operations(described):
        heading = f"<code>{method} {path}</code></h3>"
        (group,) = operation["tags"]
        assert page.count(heading) == (not path.endswith(".csv")), path
        assert heading in parts[group] or f"CSV: <code>{method} {path}</code>" in parts[group]


def test_the_contents_lead_to_every_call_and_type(page, described):
    """Each link within the page leads to one place, and the contents have every call."""
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    links = re.findall(r'href="#([^"]+)"', page)
    assert set(links) <= set(ids)
    contents = page[page.index('<nav class="contents') : page.index("<main")]
    for _, path, operation in operations(described):
        assert path.endswith(".csv") or f'href="#{operation["operationId"]}"' in contents
    assert set(described["components"]["schemas"]) <= set(ids)


def test_errors_are_explained_once(page):
    text = html.unescape(page)
    for meaning in ("the organization sent too many requests", "an unexpected error occurred"):
        assert text.count(meaning) == 1
    assert page.count("<dt><code>429</code></dt>") == 1


def test_the_page_is_small(client):
    assert len(gzip.compress(client.get("/docs").data)) <= MOST_BYTES


def test_each_command_can_be_pasted(client, database, page, described):
    """A shell splits each command into a call of the described path, which is answered."""
    (finding,) = stored(database, {})
    admin = bearer(scope=SCOPES)
    made = client.post("/api/v1/keys", json={"scopes": ["analytics:read"]}, headers=admin).json
    budget = {"agentId": "agent-1", "period": "month", "tokens": 1}
    assert client.put("/api/v1/budgets", json=budget, headers=admin).status_code == 200
    real = {"4b3ce7a3c9d5f1f0a8a1b0ec1fbcf8d2": finding.id, "7Qm2XcVb9TzK": made["id"]}
    found = re.findall(r'<pre class="command">(.*?)</pre>', page, re.DOTALL)
    assert len(found) == sum(not path.endswith(".csv") for _, path, _ in operations(described))
    commands = html.unescape("\0".join(found))
    for example, own in real.items():
        commands = commands.replace(example, own)
    fixed = {path for _, path, _ in operations(described)}
    for command in commands.split("\0"):
        path = re.findall(r"http://127.0.0.1:3000(/[^'?]*)", command)[0]
        # An id of another example is unknown here, so its command is right up to the id.
        is_known = path in fixed or any(own in path for own in real.values())
        expected = SUCCESS if is_known else {*SUCCESS, 404}
        assert called(client, command, admin) in expected, command


def test_commands_have_the_address_of_the_request(client):
    """One page is made for all hosts, and a host is no markup."""
    for base, address in (
        ("https://analytics.example.com", "https://analytics.example.com/api/v1/analytics/tokens?"),
        ("http://[::1]:3000", "http://[::1]:3000/api/v1/analytics/tokens?"),
    ):
        assert address in client.get("/docs", base_url=base).text
    hostile = client.get("/docs", headers={"Host": "a'<i>\"&c"}).text
    assert "<i>" not in hostile
    assert "server.invalid" not in hostile


def test_the_page_needs_no_script(client, page):
    """Only the form of the search is hidden without scripts."""
    assert re.findall(r"<(\w+)[^>]* hidden", page) == ["form"]
    for source in re.findall(r'<script src="([^"]+)"', page):
        with client.get(source) as script:
            assert script.status_code == 200
