"""/api/v1/organizations: members, orders, pages, search, CSV, and who may read it."""

import csv
import io

import pytest
from sqlalchemy import update

from app.reports.organizations import BATCH, ORDERS, PERIODS, SORTS
from app.storage.tables import organization_summaries
from tests.support.api_keys import created, with_key
from tests.support.findings import stored
from tests.support.organizations import make_list
from tests.support.statements import statements
from tests.support.tokens import bearer

PATH = "/api/v1/organizations"
OPERATOR = bearer(None, "analytics:read:any", drop="organization_id", exp=4_102_444_800)


@pytest.fixture
def get(client):
    def get(query="", status=200, path=PATH):
        answer = client.get(f"{path}{query}", headers=OPERATOR)
        assert answer.status_code == status, answer.text
        return answer

    return get


@pytest.fixture
def three(database, issue, roll_up):
    """Organization b grows, c falls and has the most tokens, a is new; x has no recent tokens."""
    for tenant, before, now in (("b", 1, 4), ("c", 20, 10), ("a", 0, 2), ("x", 0, 0)):
        for agent in range(now):
            issue("2026-04-14T09:00", tenant=tenant, agent=f"agent-{agent % 3}")
        issue("2026-04-05T09:00", before, tenant=tenant)
    issue("2025-04-14T09:00", tenant="x")
    issue("2026-04-15T09:00", tenant="b")
    stored(database, {}, {}, tenant="a")
    roll_up()
    make_list(database)


def ids(answer):
    return "".join(one["tenantId"] for one in answer.json["data"])


@pytest.mark.usefixtures("three")
def test_an_organization_has_the_described_members(get):
    body = get().json
    assert body.pop("data")[1] == {
        "tenantId": "b",
        "tokenCount": 4,
        "previousTokenCount": 1,
        "change": 3.0,
        "share": 0.25,
        "activeAgents": 3,
        "lastDay": "2026-04-15",
        "openFindings": 0,
        "sparkline": [0, 0, 0, 0, 0, 0, 4],
    }
    assert body == {
        "period": "7d",
        "from": "2026-04-08",
        "to": "2026-04-14",
        "countedAt": "2026-04-15T12:30:00Z",
        "totals": {
            "organizations": 4,
            "activeOrganizations": 3,
            "tokenCount": 16,
            "previousTokenCount": 21,
            "change": (16 - 21) / 21,
            "activeAgents": 8,
            "openFindings": 2,
        },
        "found": 4,
        "nextCursor": None,
    }


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", "cbax"),
        ("?order=asc", "xabc"),
        ("?sort=change", "bcax"),
        ("?sort=change&order=asc", "cbax"),
        ("?sort=agents", "bcax"),
        ("?sort=lastDay", "bacx"),
        ("?sort=lastDay&order=asc", "xacb"),
        ("?sort=openFindings", "abcx"),
        ("?sort=id", "abcx"),
        ("?sort=id&order=desc", "xcba"),
        ("?period=28d", "cbax"),
        ("?period=28d&sort=change", "abcx"),
        ("?q=B", "b"),
        ("?q=%25", ""),
    ],
)
def test_organizations_are_ordered_and_found(get, query, found):
    """Those without a value are last in both directions; equal ones are by id."""
    assert ids(get(query)) == found


@pytest.mark.usefixtures("three")
def test_a_search_does_not_change_shares_and_totals(get):
    """Totals and shares are of all organizations; ``found`` counts those that match."""
    every, found = get().json, get("?q=b").json
    assert (found["found"], every["found"]) == (1, 4)
    assert found["totals"] == every["totals"]
    assert found["data"] == [one for one in every["data"] if one["tenantId"] == "b"]


@pytest.mark.usefixtures("three")
def test_pages_have_each_organization_once(get, database):
    """In every order, from page to page, with unknown agents and equal values."""
    unknown = update(organization_summaries).values(agents_7d=None)
    database.write(lambda c: c.execute(unknown.where(organization_summaries.c.tenant_id == "c")))
    for period in PERIODS:
        for sort in SORTS:
            for order in ORDERS:
                query = f"?period={period}&sort={sort}&order={order}"
                seen, cursor = "", ""
                while cursor is not None:
                    page = get(f"{query}&limit=1{cursor and f'&cursor={cursor}'}")
                    seen, cursor = seen + ids(page), page.json["nextCursor"]
                assert seen == ids(get(query)), query


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("?period=1d", "period"),
        ("?period=7d&period=7d", "period"),
        ("?sort=name", "sort"),
        ("?sort=-tokens", "sort"),
        ("?order=up", "order"),
        ("?limit=0", "limit"),
        ("?limit=1001", "limit"),
        ("?q=", "q"),
        ("?q=%00", "q"),
        ("?cursor=", "cursor"),
        ("?cursor=YQ", "cursor"),
    ],
)
def test_a_bad_parameter_is_named(get, query, parameter):
    assert get(query, 400).json["details"] == {"parameter": parameter}


@pytest.mark.usefixtures("three")
def test_a_cursor_is_for_its_order(get):
    """The cursor of another period, sort or order is refused."""
    cursor = get("?limit=1").json["nextCursor"]
    for query in ("?period=28d", "?sort=agents", "?sort=change", "?sort=id", "?order=asc"):
        assert get(f"{query}&cursor={cursor}", 400).json["details"] == {"parameter": "cursor"}


@pytest.mark.usefixtures("three")
def test_an_unchanged_list_is_not_sent_again(client, get):
    tag = get().headers["ETag"]
    again = client.get(PATH, headers=OPERATOR | {"If-None-Match": tag})
    assert (again.status_code, again.data) == (304, b"")
    other = client.get(f"{PATH}?period=28d", headers=OPERATOR | {"If-None-Match": tag})
    assert other.status_code == 200
    assert other.headers["Last-Modified"] == "Wed, 15 Apr 2026 12:30:00 GMT"


@pytest.mark.usefixtures("three")
def test_csv_has_every_organization(client, get, monkeypatch):
    """Without a limit all of them, in batches; with one, a page. Formulas are escaped."""
    assert BATCH > 1
    monkeypatch.setattr("app.reports.organizations.BATCH", 2)
    answer = get("?sort=id", path=f"{PATH}.csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    page = get("?sort=id").json["data"]
    assert [row["tenantId"] for row in rows] == list("abcx")
    names = [name for name in page[0] if name != "sparkline"]
    assert rows == [
        {name: "" if one[name] is None else str(one[name]) for name in names} for one in page
    ]
    assert answer.headers["Content-Disposition"] == 'attachment; filename="organizations.csv"'
    tag = answer.headers["ETag"]
    again = client.get(f"{PATH}.csv?sort=id", headers=OPERATOR | {"If-None-Match": tag})
    assert again.status_code == 304
    for query, lines in (("?limit=2", 3), ("?q=c", 2)):
        assert len(get(query, path=f"{PATH}.csv").text.splitlines()) == lines


def test_before_the_first_list_there_is_none(get):
    body = get().json
    assert (body["data"], body["countedAt"], body["from"]) == ([], None, None)
    assert body["totals"]["organizations"] == 0
    assert get(path=f"{PATH}.csv").text.count("\n") == 1


@pytest.mark.usefixtures("three")
def test_only_the_scope_for_all_reads_the_list(client, database):
    """Every other scope is refused, and so is a key without it."""
    others = "analytics:read analytics:admin events:write:any events:write agents:write"
    key = with_key(created(database, "analytics:read", "analytics:admin", tenant="c")[1])
    for path in (PATH, f"{PATH}.csv"):
        for headers in (bearer("c", others), bearer("c"), key):
            answer = client.get(path, headers=headers)
            assert (answer.status_code, answer.json["code"]) == (403, "FORBIDDEN")
            assert "analytics:read:any" in answer.json["message"]
        assert client.get(path).status_code == 401
    any_key = with_key(created(database, "analytics:read:any", tenant=None)[1])
    assert client.get(PATH, headers=any_key).status_code == 200
    assert client.get(PATH, headers=bearer("c", "analytics:read:any")).status_code == 200


@pytest.mark.usefixtures("three")
def test_a_page_takes_two_statements(app, get):
    """The state of the list, and one for rows and totals."""
    get("")  # whether the caller's client has an organization is looked up, and kept for seconds
    with statements(app.extensions["analytics"].database) as sent:
        get("?q=a&sort=change")
    assert len([one for one in sent if one.startswith("SELECT")]) == 2
