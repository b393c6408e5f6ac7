"""/api/v1/analytics/findings: filters, pages, one finding, and people's marks."""

from datetime import timedelta

import pytest

from app.detection import Kind, Part, Severity
from app.intake.agent_names import set_names
from app.storage.tables import findings
from tests.support.api_keys import created, with_key
from tests.support.findings import SPIKE, START, stored
from tests.support.settings import NOW, TENANT
from tests.support.statements import statements
from tests.support.tokens import bearer

FINDINGS = "/api/v1/analytics/findings"
ADMIN = bearer(TENANT, "analytics:admin", sub="user-1", exp=4_102_444_800)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def get(client):
    def get(query="", status=200):
        answer = client.get(f"{FINDINGS}{query}", headers=bearer())
        assert answer.status_code == status, answer.text
        return answer.json

    return get


@pytest.fixture
def patch(client):
    def patch(body, finding_id=SPIKE.id, headers=ADMIN):
        return client.patch(f"{FINDINGS}/{finding_id}", json=body, headers=headers)

    return patch


def test_a_finding_has_the_described_members(database, get):
    stored(database, {})
    set_names(database, TENANT, {"agent-1": "billing-sync"}, NOW, by="tester")
    (found,) = get()["data"]
    assert "billing-sync made 83 % of the excess" in found.pop("summary")
    assert found.pop("advice")
    assert found == {
        "id": SPIKE.id,
        "kind": "spike",
        "severity": "warning",
        "status": "open",
        "openedAt": "2026-04-14T11:00:00Z",
        "detectedAt": "2026-04-14T11:00:30Z",
        "updatedAt": "2026-04-14T11:00:30Z",
        "resolvedAt": None,
        "resolution": None,
        "from": "2026-04-14T00:00:00Z",
        "to": "2026-04-14T11:00:00Z",
        "observed": 5120,
        "usual": {"low": 1150, "typical": 1390, "high": 1640},
        "scope": "organization",
        "agents": [
            {
                "agentId": "agent-1",
                "agentName": "billing-sync",
                "observed": 3900,
                "usual": 780,
                "share": 0.83,
            }
        ],
        "acknowledged": False,
        "acknowledgedBy": None,
        "note": None,
    }
    assert get(f"/{SPIKE.id}")["id"] == SPIKE.id


@pytest.fixture
def many(database):
    """Findings 0 to 3; the last one is the oldest, and 2 and 3 are resolved."""
    agent = {"kind": Kind.RETRY_LOOP, "part": Part.AGENT, "agent": "agent-2", "detail": "loop"}
    over = {"resolved_at": START + DAY, "resolution": "ended"}
    earlier = {"opened_at": START - 5 * DAY, "start": START - 6 * DAY, "end": START - 5 * DAY}
    stored(database, {}, agent, over, earlier | over)


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("", "10"),
        ("?status=resolved", "23"),
        ("?status=all", "2103"),
        ("?status=all&kind=retry_loop", "1"),
        ("?status=all&agentId=agent-2", "1"),
        ("?status=all&agentId=agent-1", ""),
        ("?status=all&from=2026-04-14", "210"),
        ("?status=all&to=2026-04-13", "3"),
        ("?status=all&from=2026-04-08&to=2026-04-08", "3"),
        ("?status=all&from=2026-04-10&to=2026-04-13", ""),
        ("?status=all&from=2026-04-14&to=9999-12-31", "210"),
        ("?limit=1", "1"),
    ],
)
def test_filters_keep_what_matches_all_of_them(many, get, query, numbers):
    assert "".join(found["id"][-1] for found in get(query)["data"]) == numbers


def test_pages_have_each_finding_once(many, get):
    seen, cursor = "", ""
    while cursor is not None:
        page = get(f"?status=all&limit=1{cursor and f'&cursor={cursor}'}")
        seen += page["data"][0]["id"][-1]
        cursor = page["nextCursor"]
    assert seen == "2103"


@pytest.mark.parametrize(
    "query",
    [
        *("status=closed", "kind=Spike", "agentId=", "agentId=a%00", "limit=0", "cursor=x"),
        *("from=2026-02-30", "from=2026-4-1", "to=1969-12-31", "from=2026-04-02&to=2026-04-01"),
        *("status=open&status=all", "cursor=MjAyNi0wNC0xNFQxMTowMDowMC4wMDAwMDBaIGEA"),
    ],
)
def test_an_invalid_parameter_is_400(get, query):
    assert get(f"?{query}", 400)["code"] == "VALIDATION_ERROR"


@pytest.mark.parametrize("finding_id", ["1" * 32, "x", "%00", "A" * 32, "..%2fkeys"])
def test_an_unknown_finding_is_404(database, client, patch, finding_id):
    stored(database, {}, tenant="org-of-somebody-else")
    assert client.get(f"{FINDINGS}/{finding_id}", headers=bearer()).status_code == 404
    assert patch({"note": "n"}, finding_id).status_code == 404
    assert patch({"note": "n"}).status_code == 404


def test_an_acknowledged_finding_is_resolved_and_taken_back(database, get, patch):
    """Marks are kept apart from what was judged; each can be taken back."""
    stored(database, {})
    answer = patch({"acknowledged": True, "note": "a load test\nof ours"})
    assert (answer.status_code, answer.headers["Cache-Control"]) == (200, "no-store")
    expected = {
        "status": "resolved",
        "resolution": "acknowledged",
        "resolvedAt": "2026-04-15T12:30:00Z",
        "acknowledged": True,
        "acknowledgedBy": "user-1",
        "note": "a load test\nof ours",
    }
    assert expected.items() <= answer.json.items()
    assert get()["data"] == []
    assert patch({"note": None}).json["acknowledged"] is True
    back = patch({"acknowledged": False}).json
    open_again = {"status": "open", "resolution": None, "resolvedAt": None, "note": None}
    assert (open_again | {"acknowledgedBy": None}).items() <= back.items()


def test_a_more_severe_finding_is_not_acknowledged(database, patch):
    """The mark is for the severity that the person saw."""
    stored(database, {})
    patch({"acknowledged": True})
    seen = findings.update().values(acknowledged_severity=Severity.INFO.value)
    database.write(lambda connection: connection.execute(seen))
    assert patch({"note": "n"}).json["acknowledged"] is False
    assert patch({"acknowledged": True}).json["status"] == "resolved"


@pytest.mark.parametrize(
    "body",
    [
        *({}, [], {"acknowledged": None}, {"acknowledged": "true"}, {"note": 1}),
        *({"note": "x" * 1001}, {"note": "\x00"}, {"status": "open"}, {"acknowledge": True}),
    ],
)
def test_invalid_marks_are_400(database, patch, body):
    stored(database, {})
    assert patch(body).status_code == 400


def test_marks_need_the_scope_of_an_administrator(database, client, patch):
    stored(database, {})
    assert patch({"note": "n"}, headers=bearer(TENANT)).status_code == 403
    reader = with_key(created(database, "analytics:read")[1])
    assert client.get(FINDINGS, headers=reader).status_code == 200
    assert patch({"note": "n"}, headers=reader).status_code == 403
    writer = with_key(created(database, "events:write")[1])
    assert client.get(FINDINGS, headers=writer).status_code == 403


def test_a_page_is_at_most_three_statements(client, database, get):
    """Findings, their agents, and the settings for the sentences."""
    used = client.application.extensions["analytics"].database
    with statements(used) as none:
        get()
    stored(database, {}, {})
    with statements(used) as some:
        get()
    assert (len(none), len(some)) == (1, 3)


def test_an_unchanged_page_is_304(database, client):
    stored(database, {})
    first = client.get(FINDINGS, headers=bearer())
    again = client.get(FINDINGS, headers=bearer() | {"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
