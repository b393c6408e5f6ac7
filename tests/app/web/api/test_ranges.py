"""Reports of days over HTTP: bodies, defaults, and which parameters go together."""

import json
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from app.reports import base, status, usage
from app.storage.tables import rollup_state
from tests.support.settings import NOW, TENANT, make_settings
from tests.support.summaries import fill
from tests.support.tokens import bearer

API = "/api/v1/analytics"
APRIL = datetime(2026, 4, 1, tzinfo=UTC)


@pytest.fixture
def settings(database_url):
    return make_settings(database_url, HOURLY_RETENTION_DAYS="800")


@pytest.fixture
def get(client):
    def get(path, tenant=TENANT, **more):
        return client.get(f"{API}/{path}", headers=bearer(tenant) | more)

    return get


@pytest.fixture
def filled(database):
    """From 28 March to 3 April: an event of one agent each noon, and one of another on 1 April."""
    issued = [(APRIL + timedelta(days=day, hours=12), "daily") for day in range(-4, 3)]
    fill(database, [*issued, (APRIL + timedelta(hours=23), "once")])


def body(answer):
    """The body as text, so that the order of members counts."""
    assert answer.status_code == 200, answer.data
    return json.dumps(answer.json)


def refused(answer, name):
    assert (answer.status_code, answer.json["code"]) == (400, "VALIDATION_ERROR")
    return answer.json["details"] == {"parameter": name} and name in answer.json["message"]


def test_bodies_are_the_documented_ones(get, filled):
    days = [{"date": "2026-03-31", "count": 1}, {"date": "2026-04-01", "count": 2}]
    expected = {"tenantId": TENANT, "days": 2, "data": days}
    assert body(get("tokens?from=2026-03-31&to=2026-04-01")) == json.dumps(expected)

    answer = get("tokens/hourly?from=2026-04-01&to=2026-04-01").json
    assert list(answer) == ["tenantId", "from", "to", "data"]
    assert (answer["from"], answer["to"], len(answer["data"])) == ("2026-04-01", "2026-04-01", 24)
    assert answer["data"][12] == {"hour": "2026-04-01T12:00:00Z", "count": 1}

    expected = {
        "tenantId": TENANT,
        "from": "2026-04-01",
        "to": "2026-04-02",
        "total": 3,
        "previous": {"from": "2026-03-30", "to": "2026-03-31", "total": 2},
        "change": 0.5,
        "activeAgents": 2,
        "largestAgent": {"agentId": "daily", "share": 2 / 3},
    }
    assert body(get("summary?from=2026-04-01&to=2026-04-02")) == json.dumps(expected)

    cells = [{"dow": 3, "hour": 12, "count": 1}, {"dow": 3, "hour": 23, "count": 1}]
    expected = {"tenantId": TENANT, "data": cells}
    assert body(get("agents/activity?from=2026-04-01&to=2026-04-01")) == json.dumps(expected)

    rows = [{"agentId": "daily", "tokenCount": 2}, {"agentId": "once", "tokenCount": 1}]
    expected = {"tenantId": TENANT, "from": "2026-04-01", "to": "2026-04-02", "data": rows}
    assert body(get("agents?from=2026-04-01&to=2026-04-02")) == json.dumps(expected)
    assert get("agents?from=2026-04-01&to=2026-04-02&limit=1").json["data"] == rows[:1]


def test_one_agents_tokens(get, filled):
    counts = get("tokens?from=2026-04-01&to=2026-04-02&agentId=once").json["data"]
    assert [point["count"] for point in counts] == [1, 0]
    assert {point["count"] for point in get("tokens?days=5&agentId=nobody").json["data"]} == {0}
    assert get("tokens?agentId=once", "org-b").json["data"][0]["count"] == 0
    # At 23:00 in UTC it is the next day in Berlin.
    counts = get("tokens?from=2026-04-01&to=2026-04-02&agentId=once&zone=Europe/Berlin").json[
        "data"
    ]
    assert [point["count"] for point in counts] == [0, 1]


def test_hours_of_a_zone_have_its_offset(get, filled):
    """Where the clock is changed, an hour is left out or comes twice, with another offset."""
    data = get("tokens/hourly?from=2026-03-29&to=2026-03-29&zone=Europe/Berlin").json["data"]
    assert [point["hour"] for point in data[:3]] == [
        "2026-03-29T00:00:00+01:00",
        "2026-03-29T01:00:00+01:00",
        "2026-03-29T03:00:00+02:00",
    ]
    assert len(data) == 23
    data = get("tokens/hourly?from=2025-10-26&to=2025-10-26&zone=Europe/Berlin").json["data"]
    assert len(data) == 25
    assert [point["hour"] for point in data[2:4]] == [
        "2025-10-26T02:00:00+02:00",
        "2025-10-26T02:00:00+01:00",
    ]
    data = get("tokens/hourly?from=2026-03-29&to=2026-03-29&zone=Asia/Kolkata").json["data"]
    assert (data[0]["hour"], len(data)) == ("2026-03-29T00:30:00+05:30", 24)


def test_without_from_and_to_a_period_ends_today(get, filled):
    assert get("tokens/hourly").json["from"] == get("tokens/hourly").json["to"] == "2026-04-15"
    assert get("tokens/hourly?zone=Pacific/Auckland").json["from"] == "2026-04-16"
    answer = get("summary").json
    assert (answer["from"], answer["to"], answer["total"]) == ("2026-03-17", "2026-04-14", 8)
    assert answer["previous"] == {"from": "2026-02-15", "to": "2026-03-15", "total": 0}
    days = get("tokens?days=2&zone=Pacific/Auckland").json["data"]
    assert [point["date"] for point in days] == ["2026-04-15", "2026-04-16"]


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("tokens?from=2026-04-01", "to"),
        ("tokens?to=2026-04-01", "from"),
        ("tokens?from=2026-04-01&to=2026-04-02&days=2", "days"),
        ("tokens?from=2026-04-02&to=2026-04-01", "to"),
        ("tokens?from=2025-01-01&to=2026-01-02", "to"),
        ("tokens?from=2026-04-01&to=2026-04-02&from=2026-04-01", "from"),
        ("tokens?from=2026-04-01&to=2026-04-31", "to"),
        ("tokens?from=2024-02-29&to=2025-03-01", "to"),
        ("tokens?from=2025-02-29&to=2025-03-01", "from"),
        ("tokens?from=1969-12-31&to=1970-01-01", "from"),
        ("tokens?from=2026-04-01&to=2026-04-02&days=", "days"),
        ("tokens?from=2026-04-01&to=2026-04-02T00:00:00Z", "to"),
        ("tokens?from=2026-04-01&to=", "to"),
        ("tokens?zone=Europe", "zone"),
        ("tokens?zone=../UTC", "zone"),
        ("tokens?zone=localtime", "zone"),
        ("tokens?zone=right/UTC", "zone"),
        ("tokens?zone=UTC&zone=UTC", "zone"),
        ("tokens?agentId=", "agentId"),
        ("tokens?agentId=a%00", "agentId"),
        ("tokens?agentId=a&agentId=a", "agentId"),
        ("tokens?zone=Mars", "zone"),
        ("tokens/hourly?from=2026-03-01&to=2026-04-01", "to"),
        ("tokens/hourly?to=2026-04-01", "from"),
        ("summary?from=2025-01-01&to=2026-01-02", "to"),
        ("summary?zone=", "zone"),
        ("agents/activity?from=2026-04-01&to=2026-04-02&months=1", "months"),
        ("agents/activity?zone=Europe/Berlin", "zone"),
        ("agents?from=2026-04-01&to=2026-04-02&month=2026-04", "month"),
        ("agents?month=2026-04&zone=Europe/Berlin", "zone"),
        ("agents?from=2025-01-01&to=2026-01-02", "to"),
    ],
)
def test_parameters_that_do_not_go_together_are_400(get, query, name):
    assert refused(get(query), name)


def test_a_range_has_at_most_a_leap_years_days(get):
    assert get("tokens?from=2025-01-01&to=2026-01-01").json["days"] == 366
    assert get("tokens?from=2024-02-29&to=2025-02-28").json["days"] == 366
    assert len(get("tokens/hourly?from=2026-03-01&to=2026-03-31").json["data"]) == 31 * 24


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Pacific/Niue"])
def test_the_ends_of_the_calendar_are_days(get, zone):
    """The last day that can be written is a day like others; its rest in UTC cannot be written."""
    for path in ("tokens", "tokens/hourly", "summary", "agents/activity", "agents"):
        answer = get(f"{path}?from=9999-12-31&to=9999-12-31&zone={zone}")
        assert answer.status_code == 200, answer.data
        early = get(f"{path}?from=1970-01-01&to=1970-01-01&zone={zone}")
        assert early.status_code in (200, 400)


def test_days_before_the_retention_are_400_with_the_first_day(get):
    answer = get("tokens/hourly?from=2024-01-31&to=2024-02-01")
    assert (answer.status_code, answer.json["code"]) == (400, "VALIDATION_ERROR")
    assert answer.json["details"] == {"parameter": "from", "firstDay": "2024-02-01"}
    assert get("tokens/hourly?from=2024-02-01&to=2024-02-01").status_code == 200
    assert get("tokens?from=2024-01-31&to=2024-02-01").status_code == 200


def test_tables_that_are_being_filled_are_503_with_the_reason(get, filled, database):
    state = sa.update(rollup_state).values(backfilled=1, backfill_end=2)
    database.write(lambda connection: connection.execute(state))
    assert get("tokens/hourly?from=2026-04-01&to=2026-04-02").status_code == 200
    fill(database, [(APRIL, "a")], tenant="org-b", finer=False)
    answer = get("tokens/hourly?from=2026-04-01&to=2026-04-02", "org-b")
    assert (answer.status_code, answer.json["code"]) == (503, "SERVICE_UNAVAILABLE")
    assert "Retry-After" in answer.headers
    assert answer.json["details"] == {"firstDay": "2026-04-02"}
    assert "still being filled" in answer.json["message"]
    assert get("tokens?from=2026-04-01&to=2026-04-02", "org-b").status_code == 200


def test_an_unchanged_range_is_304(get, filled):
    for path in ("tokens/hourly", "summary", "status", "agents?from=2026-04-01&to=2026-04-02"):
        etag = get(path).headers["ETag"]
        assert get(path, **{"If-None-Match": etag}).status_code == 304


def test_a_long_usage_of_days_is_sent_in_pieces(get, filled, monkeypatch):
    paths = [f"agents{ending}?from=2026-04-01&to=2026-04-02" for ending in ("", ".csv")]
    short = [get(path) for path in paths]
    monkeypatch.setattr(usage, "MOST", 1)
    monkeypatch.setattr(base, "BATCH", 1)
    long = [get(path) for path in paths]
    assert [answer.data for answer in long] == [answer.data for answer in short]
    assert b'"daily"' in long[0].data


def test_summary_and_status_are_one_line_of_csv(get, filled):
    lines = get("summary.csv?from=2026-04-01&to=2026-04-02").text.splitlines()
    assert lines == [
        "from,to,total,previousFrom,previousTo,previousTotal,change,activeAgents,largestAgentId,"
        "largestAgentShare",
        f"2026-04-01,2026-04-02,3,2026-03-30,2026-03-31,2,0.5,2,daily,{2 / 3}",
    ]
    lines = get("status.csv").text.splitlines()
    assert lines == [
        "countedAt,completeThrough,lagSeconds,pendingEvents",
        "2026-04-15T12:30:00Z,2026-04-15T12:00:00Z,0,0",
    ]


def test_the_status_tells_zero_from_not_counted_yet(get, issue, roll_up):
    """Only the organization's own pending events are counted."""
    empty = get("status").json
    assert empty == {"tenantId": TENANT} | dict.fromkeys(("countedAt", "completeThrough")) | {
        "lagSeconds": 0,
        "pendingEvents": 0,
    }
    issue(NOW, times=3)
    issue(NOW, times=2, tenant="org-b")
    assert (get("status").json["pendingEvents"], get("status", "org-b").json["pendingEvents"]) == (
        3,
        2,
    )
    roll_up()
    counted = get("status").json
    assert (counted["pendingEvents"], counted["lagSeconds"]) == (0, 0)
    counted_at = datetime.fromisoformat(counted["countedAt"])
    through = counted_at.replace(minute=0, second=0, microsecond=0)
    assert datetime.fromisoformat(counted["completeThrough"]) == through


def test_pending_events_stop_at_ten_thousand(get, issue, monkeypatch):
    assert status.MOST_PENDING == 10_000
    issue(NOW, times=7)
    monkeypatch.setattr(status, "MOST_PENDING", 5)
    assert get("status").json["pendingEvents"] == 5
