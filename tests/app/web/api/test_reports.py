"""The three reads: bodies, periods, order, strict parameters, conditional requests."""

import json
from datetime import UTC, date, datetime, timedelta
from email.utils import parsedate_to_datetime
from itertools import pairwise

import pytest
from sqlalchemy import insert

from app.storage.tables import (
    daily_issuance,
    dow_hour_activity,
    dow_hour_total,
    monthly_agent_issuance,
)
from tests.support.settings import TENANT
from tests.support.tokens import bearer

TREND = "/api/v1/analytics/tokens"
HEATMAP = "/api/v1/analytics/agents/activity"
AGENTS = "/api/v1/analytics/agents"
READS = [TREND, HEATMAP, AGENTS]
BEYOND_DOUBLES = 2**53 + 1


@pytest.fixture
def get(client):
    """The answer to a read with a good token."""

    def get(path, tenant=TENANT, headers=None, **parameters):
        return client.get(path, query_string=parameters, headers=bearer(tenant) | (headers or {}))

    return get


@pytest.fixture
def fill(database):
    """Write rows straight into a rollup table."""

    def fill(table, *rows):
        rows = [{"tenant_id": TENANT} | row for row in rows]
        database.write(lambda connection: connection.execute(insert(table), rows))

    return fill


def text(response):
    """The body as text, so that the order of members counts."""
    assert (response.status_code, response.mimetype) == (200, "application/json")
    return json.dumps(response.json)


def data(response):
    assert response.status_code == 200, response.data
    return response.json["data"]


def check_refusal(response, status, code):
    assert (response.status_code, response.mimetype) == (status, "application/json")
    assert set(response.json) <= {"code", "message", "details"}
    assert response.json["code"] == code
    assert response.json["message"]


def test_trend_body_is_exactly_the_guides(get, issue, roll_up):
    issue("2026-04-13T00:00:00Z", times=2)
    issue("2026-04-15T12:29:59Z")
    roll_up()
    points = [("2026-04-13", 2), ("2026-04-14", 0), ("2026-04-15", 1)]
    points = [{"date": day, "count": count} for day, count in points]
    assert text(get(TREND, days=3)) == json.dumps({"tenantId": TENANT, "days": 3, "data": points})


def test_heatmap_body_is_exactly_the_guides(get, issue, roll_up):
    issue("2026-04-15T14:59:59.999999Z")
    issue("2026-04-13T09:00:00Z", times=2)
    issue("2026-04-06T09:30:00Z")
    roll_up()
    cells = [{"dow": 1, "hour": 9, "count": 3}, {"dow": 3, "hour": 14, "count": 1}]
    assert text(get(HEATMAP)) == json.dumps({"tenantId": TENANT, "data": cells})


def test_agents_body_is_exactly_the_guides(get, issue, roll_up):
    issue("2026-04-01T00:00:00Z", agent="quiet")
    issue("2026-04-15T12:00:00Z", agent="busy", times=2)
    roll_up()
    rows = [{"agentId": "busy", "tokenCount": 2}, {"agentId": "quiet", "tokenCount": 1}]
    expected = {"tenantId": TENANT, "month": "2026-04", "data": rows}
    assert text(get(AGENTS)) == json.dumps(expected)


def test_a_tenant_without_events_gets_zeros_and_empty_lists(get):
    assert {point["count"] for point in data(get(TREND))} == {0}
    assert get(HEATMAP).json == {"tenantId": TENANT, "data": []}
    assert get(AGENTS).json == {"tenantId": TENANT, "month": "2026-04", "data": []}


@pytest.mark.parametrize(
    ("parameters", "days"), [({}, 30)] + [({"days": n}, n) for n in (1, 7, 90)]
)
def test_trend_has_exactly_n_days_and_the_last_is_today(get, parameters, days):
    response = get(TREND, **parameters)
    dates = [date.fromisoformat(point["date"]) for point in data(response)]
    assert response.json["days"] == len(dates) == days
    assert dates[-1] == date(2026, 4, 15)
    assert all(later - earlier == timedelta(days=1) for earlier, later in pairwise(dates))


def test_trend_counts_whole_days_and_none_outside(get, issue, roll_up):
    for instant in ["2026-04-13T23:59:59.999999Z", "2026-04-14T00:00:00Z", "2026-04-16T00:00:00Z"]:
        issue(instant)
    roll_up()
    assert [point["count"] for point in data(get(TREND, days=2))] == [1, 0]


@pytest.mark.parametrize(
    ("months", "first"), [(1, "2026-04-01"), (5, "2025-12-01"), (24, "2024-05-01")]
)
def test_heatmap_months_end_with_the_current_month(get, issue, roll_up, months, first):
    """The heatmap's months are the current calendar month and those before it."""
    start = datetime.fromisoformat(first).replace(tzinfo=UTC)
    issue(start)
    issue("2026-04-15T12:00:00Z")
    issue(start - timedelta(microseconds=1), times=10)
    issue("2026-05-01T00:00:00Z", times=100)
    roll_up()
    assert sum(cell["count"] for cell in data(get(HEATMAP, months=months))) == 2


def test_heatmap_without_months_is_all_recorded_activity(get, issue, roll_up):
    for instant in ["1970-01-01T00:00:00Z", "2024-04-30T23:00:00Z", "2026-04-15T12:00:00Z"]:
        issue(instant)
    roll_up()
    assert sum(cell["count"] for cell in data(get(HEATMAP))) == 3


def test_heatmap_starts_on_sunday_by_dow_then_hour(get, issue, roll_up):
    """The heatmap counts Sunday as zero and is sorted by weekday, then by hour."""
    for day in range(11, 4, -1):
        issue(f"2026-04-{day:02}T23:59:59Z")
    issue("2026-04-05T00:00:00Z", times=9)
    roll_up()
    cells = [(cell["dow"], cell["hour"], cell["count"]) for cell in data(get(HEATMAP))]
    assert cells == [(0, 0, 9)] + [(dow, 23, 1) for dow in range(7)]


def test_heatmap_adds_the_same_cell_of_different_months(get, issue, roll_up):
    issue("2026-03-02T09:00:00Z")
    issue("2026-04-06T09:00:00Z", times=2)
    roll_up()
    assert data(get(HEATMAP, months=2)) == [{"dow": 1, "hour": 9, "count": 3}]


def test_agents_month_is_a_whole_calendar_month(get, issue, roll_up):
    issue("2026-02-28T23:59:59.999999Z", agent="february")
    issue("2026-03-01T00:00:00Z", agent="march")
    issue("2026-03-31T23:59:59.999999Z", agent="march")
    issue("2026-04-01T00:00:00Z", agent="april")
    roll_up()
    march = get(AGENTS, month="2026-03")
    assert march.json["month"] == "2026-03"
    assert data(march) == [{"agentId": "march", "tokenCount": 2}]
    assert [row["agentId"] for row in data(get(AGENTS))] == ["april"]


@pytest.mark.parametrize("month", ["1970-01", "9999-12"])
def test_agents_of_a_silent_month_are_an_empty_list(get, month):
    assert get(AGENTS, month=month).json == {"tenantId": TENANT, "month": month, "data": []}


def test_agents_with_equal_counts_go_by_code_point(get, issue, roll_up):
    names = [" ", "-a", "A", "Z", "_", "a", "aA", "a_", "aa", "b", "z", "é", "\ufffd", "\U0001f600"]
    for name in reversed(names):
        issue("2026-04-02T00:00:00Z", agent=name)
    issue("2026-04-02T00:00:00Z", agent="zz", times=2)
    roll_up()
    assert [row["agentId"] for row in data(get(AGENTS))] == ["zz", *names]
    assert [row["agentId"] for row in data(get(AGENTS, limit=3))] == ["zz", " ", "-a"]


def test_agents_without_limit_are_all_agents(get, fill):
    rows = [{"month": date(2026, 4, 1), "agent_id": f"{n:04}", "issued": 1} for n in range(1001)]
    fill(monthly_agent_issuance, *rows)
    assert len(data(get(AGENTS))) == 1001
    assert len(data(get(AGENTS, limit=1000))) == 1000
    assert [row["agentId"] for row in data(get(AGENTS, limit=1))] == ["0000"]


def test_counts_beyond_doubles_stay_exact(get, fill):
    big, march, april = 2**53 + 1, date(2026, 3, 1), date(2026, 4, 1)
    fill(daily_issuance, {"date": date(2026, 4, 15), "issued": big})
    cells = [{"month": march, "issued": big}, {"month": april, "issued": 1}]
    fill(dow_hour_activity, *(cell | {"dow": 0, "hour": 0} for cell in cells))
    fill(dow_hour_total, {"dow": 0, "hour": 0, "issued": big + 1})
    fill(monthly_agent_issuance, {"month": april, "agent_id": "a", "issued": 2**63 - 1})
    assert data(get(TREND, days=1)) == [{"date": "2026-04-15", "count": big}]
    for months in [{}, {"months": 2}]:
        assert text(get(HEATMAP, **months)).endswith(f'"count": {big + 1}}}]}}')
    assert data(get(AGENTS)) == [{"agentId": "a", "tokenCount": 2**63 - 1}]


def test_two_tenants_never_see_one_another(get, issue, roll_up):
    issue("2026-04-13T09:00:00Z", event_id="same", agent="ours")
    issue("2026-04-15T10:00:00Z", event_id="same", agent="theirs", tenant="org-b")
    roll_up()
    for tenant, counts, hour, agent in [
        (TENANT, [1, 0, 0], 9, "ours"),
        ("org-b", [0, 0, 1], 10, "theirs"),
    ]:
        assert {get(path, tenant).json["tenantId"] for path in READS} == {tenant}
        assert [point["count"] for point in data(get(TREND, tenant, days=3))] == counts
        assert [cell["hour"] for cell in data(get(HEATMAP, tenant))] == [hour]
        assert [row["agentId"] for row in data(get(AGENTS, tenant))] == [agent]


@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        (TREND, "days", "91"),
        (HEATMAP, "months", "25"),
        (AGENTS, "limit", "1001"),
        (AGENTS, "month", "2026-13"),
    ],
)
def test_a_report_refuses_an_invalid_parameter(get, path, name, value):
    """Each report reads its parameters strictly; test_params.py has their cases."""
    answer = get(path, **{name: value})
    check_refusal(answer, 400, "VALIDATION_ERROR")
    assert answer.json["details"] == {"parameter": name}


@pytest.mark.parametrize(
    ("path", "query"),
    [
        (TREND, "days=7&days=7"),
        (HEATMAP, "months=1&months=2"),
        (AGENTS, "limit=1&limit=1"),
        (TREND, "days=%FF"),
        (AGENTS, "month=2026-04%00"),
    ],
)
def test_a_parameter_repeated_or_undecodable_is_400(client, path, query):
    check_refusal(client.get(f"{path}?{query}", headers=bearer()), 400, "VALIDATION_ERROR")


@pytest.mark.parametrize("path", READS)
def test_a_query_that_is_not_utf_8_is_400(client, path):
    # A client library would escape the byte.
    raw = {"QUERY_STRING": "x=\xff"}
    answer = client.get(path, headers=bearer(), environ_overrides=raw)
    check_refusal(answer, 400, "VALIDATION_ERROR")


@pytest.mark.parametrize(
    "query", ["x=1&x=2", "DAYS=x", "days[]=x", "month=x", "x=%FF", "&&", "=", "%00"]
)
def test_unknown_parameters_are_ignored(client, query):
    assert len(data(client.get(f"{TREND}?{query}&days=2", headers=bearer()))) == 2


@pytest.mark.parametrize("path", READS)
def test_an_unchanged_body_is_304_and_a_changed_one_is_not(get, issue, roll_up, path):
    etag = get(path).headers["ETag"]
    for condition in [etag, f"W/{etag.removeprefix('W/')}", f'"other", {etag}', "*"]:
        answer = get(path, headers={"If-None-Match": condition})
        assert (answer.status_code, answer.data, answer.headers["ETag"]) == (304, b"", etag)
    assert get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    issue("2026-04-15T12:00:00Z")
    roll_up()
    changed = get(path, headers={"If-None-Match": etag})
    assert changed.status_code == 200
    assert changed.headers["ETag"] != etag


def test_conditional_requests_go_by_the_body_not_by_the_date(get, issue, roll_up):
    roll_up()
    before = get(TREND).headers
    roll_up()
    assert get(TREND, headers={"If-None-Match": before["ETag"]}).status_code == 304
    since = {"If-Modified-Since": "Fri, 31 Dec 2099 23:59:59 GMT"}
    assert get(TREND, headers=since).status_code == 200
    stale = {"If-None-Match": '"other"', "If-Modified-Since": before["Last-Modified"]}
    assert get(TREND, headers=stale).status_code == 200


def test_a_failed_precondition_is_answered_in_the_envelope(get):
    answer = get(TREND, headers={"If-Match": '"other"'})
    assert answer.status_code == 200 or set(answer.json) <= {"code", "message", "details"}


def test_a_matching_etag_is_no_substitute_for_a_token(client, get):
    conditions = {"If-None-Match": get(TREND).headers["ETag"]}
    check_refusal(client.get(TREND, headers=conditions), 401, "UNAUTHORIZED")
    assert get(TREND, "org-b", headers=conditions).status_code == 200


def test_without_a_finished_run_there_is_no_last_modified(get):
    assert "Last-Modified" not in get(TREND).headers


@pytest.mark.parametrize("path", READS)
def test_last_modified_is_when_the_last_run_finished(get, roll_up, path):
    before = datetime.now(UTC).replace(microsecond=0)
    roll_up()
    finished = parsedate_to_datetime(get(path).headers["Last-Modified"])
    assert before <= finished <= datetime.now(UTC)


@pytest.mark.parametrize("path", READS)
def test_head_answers_as_get_without_a_body(client, path):
    got, head = client.get(path, headers=bearer()), client.head(path, headers=bearer())
    assert (head.status_code, head.data) == (200, b"")
    for name in ["Content-Type", "Content-Length", "ETag", "Cache-Control"]:
        assert head.headers[name] == got.headers[name]


@pytest.mark.parametrize("path", READS)
def test_only_the_caller_may_cache_and_must_ask_again(get, path):
    control = get(path).cache_control
    assert control.private
    assert control.no_cache
    assert not control.public


@pytest.mark.parametrize(
    "path",
    ["/api/v1/nothing", "/api/v1//analytics/tokens", "//api/v1/analytics/tokens", f"{TREND}/"],
)
def test_an_unknown_path_is_404_and_no_redirect(client, path):
    """An unknown path gets 404 in the error envelope and never a redirect."""
    answer = client.open(path=path, base_url="http://localhost", headers=bearer())
    check_refusal(answer, 404, "NOT_FOUND")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_another_method_is_405_in_the_envelope(client, method):
    answer = client.open(TREND, method=method, headers=bearer())
    check_refusal(answer, 405, "METHOD_NOT_ALLOWED")
    assert "GET" in answer.headers["Allow"]
