"""No request sees or changes another tenant's data, even if it names that tenant.

The walk goes over the URL map, so that a new route is held to the rules by being there.
"""

import re
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import pytest
from flask import Flask
from sqlalchemy import select

from app.auth.api_keys import SCOPES
from app.detection import Share
from app.factory import create_app
from app.storage.tables import issuance_events
from tests.support.api_keys import created, with_key
from tests.support.findings import SPIKE, stored
from tests.support.organizations import make_list
from tests.support.settings import make_settings
from tests.support.tokens import bearer, token

OURS, THEIRS = "org-a", "org-of-somebody-else"
EVENTS, AGENTS, SETTINGS = "/api/v1/events", "/api/v1/agents", "/api/v1/settings"
BUDGETS = "/api/v1/budgets"
SHARED, THEIR_AGENT = "agent-of-both", "agent-of-theirs"
OUR_NAME, THEIR_NAME = "ours to name", "named by somebody else"
MORNING, NOON = "2026-04-14T09:00:00Z", "2026-04-14T12:00:00Z"
# Ours are 2 + 3 events; theirs 613 + 208, 821 together: numbers that no date or limit holds.
THEIR_NUMBERS = ("613", "208", "821")
NOT_OURS = re.compile(rf"{THEIRS}|{THEIR_AGENT}|{THEIR_NAME}|\b(?:{'|'.join(THEIR_NUMBERS)})\b")

# Answered without a token, and with nobody's data: these are held to the rules as well, but for
# asking who calls.
PUBLIC = {"/api/v1/openapi.json"}
# What a route's variables are replaced with; a new variable wants an entry.
VARIABLES = {"agentId": "agent-of-both", "keyId": "AAAAAAAAAAAA", "findingId": SPIKE.id}
VARIABLES["linkId"] = "AAAAAAAAAAAAAAAA"
VARIABLES["webhookId"] = "AAAAAAAAAAAA"
WEBHOOK = f"/api/v1/webhooks/{VARIABLES['webhookId']}"
# What is sent to a route with a method that takes a body; nothing new comes of it.
STORED = {"id": "shared-0", "agentId": SHARED, "issuedAt": MORNING}
BODIES = {
    EVENTS: STORED,
    AGENTS: [{"agentId": SHARED, "name": OUR_NAME}],
    f"{AGENTS}/{SHARED}": {"name": OUR_NAME},
    SETTINGS: {"tokenLifetime": 2},
    BUDGETS: {"period": "day", "tokens": 2},
    f"/api/v1/analytics/findings/{SPIKE.id}": {"note": "ours"},
}

QUERIES = {
    "no parameters": {},
    "every parameter": {
        "days": "90",
        "months": "24",
        "month": "2026-04",
        "limit": "1000",
        "cursor": "YWc",
        "q": "agent",
        "invalid": "skip",
        "status": "all",
        "agentId": THEIR_AGENT,
    },
    "days of a zone": {
        "from": "2026-04-01",
        "to": "2026-04-20",
        "zone": "Europe/Berlin",
        "agentId": SHARED,
        "sort": "lastSeen",
    },
    "bad parameters": {
        "from": "2026-04-31",
        "zone": "Mars",
        "sort": "x",
        "days": "0",
        "months": "x",
        "month": "2026",
        "limit": "-1",
        "invalid": "no",
        "cursor": "=",
        "q": "",
        "status": "closed",
        "agentId": "",
    },
}
HEADERS = [
    *("X-Tenant-Id", "X-Tenant", "Tenant", "X-Organization-Id", "X-Organization", "X-Org-Id"),
    *("Organization-Id", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Prefix", "Forwarded"),
    *("X-Forwarded-User", "X-Remote-User", "X-Auth-Request-User", "X-User-Id", "X-Client-Id"),
    *("X-Original-Url", "X-Rewrite-Url", "X-Http-Method-Override", "From", "Host", "Referer"),
    *("Cookie", "X-Api-Key", "X-Authorization", "Proxy-Authorization"),
]
PARAMETERS = [
    *("tenantId", "tenant_id", "tenant", "organizationID", "organization_id", "organization"),
    *("orgId", "org_id", "org", "g.tenant_id", "sub", "client_id", "agent_id"),
]
CLAIMS = [
    *("tenantId", "tenant_id", "tenant", "organizationId", "organization", "org_id", "org"),
    *("sub", "client_id", "azp", "ORGANIZATION_ID", "organization_id ", "scp", "permissions"),
]
WRITING = "events:write agents:write analytics:admin"
# Writes, and what only an administrator of the organization reads.
OF_OPERATORS = ("/api/v1/organizations", "/api/v1/organizations.csv")
NOT_READS = (
    "/api/v1/keys",
    "/api/v1/share-links",
    "/api/v1/webhooks",
    WEBHOOK,
    f"{WEBHOOK}/deliveries",
    SETTINGS,
    BUDGETS,
    EVENTS,
    *OF_OPERATORS,
    *PUBLIC,
)
THEIR_TOKEN = token(THEIRS, exp=2**32)


def other(headers=None, query=None, claims=None, scope=WRITING):
    return headers or {}, query or {}, claims or {}, scope


DISGUISES = {
    **{f"header {name}": other(headers={name: THEIRS}) for name in HEADERS},
    **{f"query {name}": other(query={name: THEIRS}) for name in PARAMETERS},
    **{f"claim {name}": other(claims={name: THEIRS}) for name in CLAIMS},
    "parameters in a list": other(query={"organization_id[]": THEIRS, "tenant_id[0]": THEIRS}),
    "their token in a parameter": other(query={"access_token": THEIR_TOKEN}),
    "their token in a cookie": other(headers={"Cookie": f"access_token_cookie={THEIR_TOKEN}"}),
    "their token in a header": other(headers={"X-Authorization": f"Bearer {THEIR_TOKEN}"}),
    "a path of theirs": other(headers={"X-Forwarded-Prefix": f"/{THEIRS}"}),
}

ALL_AT_ONCE = other(
    *(dict.fromkeys(names, THEIRS) for names in (HEADERS, PARAMETERS, CLAIMS)),
)


def path_of(rule):
    """A route's path; fails when a variable of it has no value to try."""
    missing = sorted(rule.arguments - VARIABLES.keys())
    assert not missing, f"{rule.rule}: give VARIABLES in {__name__} a value for {missing}"
    return re.sub(r"<(?:[^<>:]+:)?([^<>]+)>", lambda found: VARIABLES[found[1]], rule.rule)


def walk(app):
    """Each path of the API with each of its methods."""
    rules = [rule for rule in app.url_map.iter_rules() if rule.rule.startswith("/api/v1")]
    return sorted((path_of(rule), method) for rule in rules for method in rule.methods)


def walk_private(app):
    """Those of :func:`walk` that need a token."""
    return [(path, method) for path, method in walk(app) if path not in PUBLIC]


def demanding(app):
    """Those that demand a token: all but the few that are named here."""
    return [(path, method) for path, method in walk(app) if path not in PUBLIC]


@pytest.fixture
def send(client):
    """Call a route with our token, disguised as somebody else's request."""

    def send(path, method, disguise, parameters, tenant=OURS, **more):
        headers, query, claims, scope = disguise
        body = None if method in ("GET", "HEAD", "OPTIONS") else BODIES.get(path, {})
        return client.open(
            path,
            method=method,
            headers=bearer(tenant, scope, **claims) | headers | more,
            query_string=parameters | query,
            json=body,
        )

    return send


@pytest.fixture
def both_tenants(client, roll_up, database):
    """The same ids of events, agents and findings at both tenants, in different numbers."""
    counts = {OURS: {SHARED: 2, "agent-of-ours": 3}, THEIRS: {SHARED: 613, THEIR_AGENT: 208}}
    for tenant, agents in counts.items():
        names = [name for name, count in agents.items() for _ in range(count)]
        events = [
            {
                "id": f"shared-{number}",
                "agentId": name,
                "issuedAt": MORNING if name == SHARED else NOON,
            }
            for number, name in enumerate(names)
        ]
        answer = client.post(EVENTS, json=events, headers=bearer(tenant, "events:write"))
        assert answer.json == {"received": len(names), "accepted": len(names), "duplicates": 0}
        name = OUR_NAME if tenant == OURS else THEIR_NAME
        named = [{"agentId": agent, "name": name} for agent in agents]
        answer = client.put(AGENTS, json=named, headers=bearer(tenant, "agents:write"))
        assert answer.json == {"received": len(agents)}
        shares = tuple(Share(agent, count, 0, 0.5) for agent, count in agents.items())
        stored(database, {"agents": shares, "observed": sum(agents.values())}, tenant=tenant)
        settings = {"tokenLifetime": agents[SHARED]}
        answer = client.put(SETTINGS, json=settings, headers=bearer(tenant, "analytics:admin"))
        assert answer.status_code == 200
        for agent, count in agents.items():
            budget = {"agentId": agent, "period": "month", "tokens": count}
            answer = client.put(BUDGETS, json=budget, headers=bearer(tenant, "analytics:admin"))
            assert answer.status_code == 200
    roll_up()
    make_list(database)


def shown(answer):
    """All that an answer tells, but for the number that each request gets."""
    headers = [(name, value) for name, value in answer.headers if name != "X-Request-Id"]
    return answer.status_code, sorted(headers), answer.data


def check_nothing_of_theirs(answer):
    kept = [value for name, value in answer.headers if name not in ("ETag", "Content-Length")]
    assert not NOT_OURS.search("\n".join([*kept, answer.text]))


@pytest.mark.usefixtures("both_tenants")
@pytest.mark.parametrize(
    "disguises",
    [
        pytest.param({"all": ALL_AT_ONCE}, id="all at once"),
        pytest.param(DISGUISES, id="each alone", marks=pytest.mark.slow),
    ],
)
def test_what_a_request_says_besides_its_token_changes_nothing(app, send, disguises):
    routes = walk(app)
    assert {(EVENTS, "POST"), ("/api/v1/analytics/agents", "GET")} <= set(routes)
    for (path, method), parameters in product(routes, QUERIES.values()):
        plain = send(path, method, other(), parameters)
        check_nothing_of_theirs(plain)
        for name, disguise in disguises.items():
            answer = send(path, method, disguise, parameters)
            assert (path, name, *shown(answer)) == (path, name, *shown(plain))


@pytest.mark.usefixtures("both_tenants")
def test_the_etag_of_anothers_answer_is_never_taken_for_ours(app, send):
    """Only an answer with the very same text has the same tag, as a status in CSV may have it."""
    tags = {}
    for (path, method), parameters in product(walk(app), QUERIES.values()):
        theirs = send(path, method, other(), parameters, THEIRS)
        plain = send(path, method, other(), parameters)
        if "ETag" not in theirs.headers:
            continue
        tags[path] = theirs.headers["ETag"]
        same = tags[path] == plain.headers["ETag"]
        assert method != "GET" or same == (theirs.data == plain.data)
        for tag in (tags[path], f"W/{tags[path]}", f'"other", {tags[path]}'):
            answer = send(path, method, other(), parameters, **{"If-None-Match": tag})
            assert answer.status_code == (304 if same else 200)
            assert same or shown(answer) == shown(plain)
        ours = send(path, method, other(), parameters, **{"If-None-Match": plain.headers["ETag"]})
        assert ours.status_code == 304
    assert len(tags) >= 3


@pytest.mark.usefixtures("both_tenants")
@pytest.mark.parametrize("period", ["days=30", "from=2026-04-14&to=2026-04-14&zone=Asia/Tokyo"])
def test_an_agent_of_another_tenant_has_zeros(client, period):
    """An agent of another tenant is as unknown as one that does not exist."""
    path = f"/api/v1/analytics/tokens?{period}"
    unknown = client.get(f"{path}&agentId=nobody", headers=bearer(OURS))
    theirs = client.get(f"{path}&agentId={THEIR_AGENT}", headers=bearer(OURS))
    assert shown(theirs) == shown(unknown)
    assert {point["count"] for point in theirs.json["data"]} == {0}
    shared = client.get(f"{path}&agentId={SHARED}", headers=bearer(OURS)).json["data"]
    assert sum(point["count"] for point in shared) == 2


@pytest.mark.usefixtures("both_tenants")
def test_what_is_looked_for_is_there_for_its_owner(app, send):
    reads = [path for path, method in walk(app) if method == "GET"]
    answers = [send(path, "GET", other(), QUERIES["no parameters"], THEIRS) for path in reads]
    found = set(NOT_OURS.findall("\n".join(answer.text for answer in answers)))
    assert found == {THEIRS, THEIR_AGENT, THEIR_NAME, *THEIR_NUMBERS}
    ours = [send(path, "GET", other(), QUERIES["no parameters"]).text for path in reads]
    assert re.search(r'"agent-of-ours","tokenCount":3\b', "".join(ours))


@pytest.mark.usefixtures("both_tenants")
def test_a_scope_to_write_for_any_organization_reads_no_other(app, send):
    for (path, method), parameters in product(walk(app), QUERIES.values()):
        if method in ("GET", "HEAD"):
            answer = send(path, method, other(scope=f"events:write:any {WRITING}"), parameters)
            check_nothing_of_theirs(answer)
            assert shown(answer) == shown(send(path, method, other(), parameters))


def reads(app):
    """The paths of the reads that take an organizationId."""
    return [path for path, method in walk(app) if method == "GET" and path not in NOT_READS]


@pytest.mark.usefixtures("both_tenants")
@pytest.mark.parametrize("named", [THEIRS, OURS, "", "a\x00"])
def test_only_the_scope_for_all_names_an_organization(app, send, named):
    """With every other scope it is 403, even for the own organization."""
    assert len(reads(app)) >= 15
    wide = other(query={"organizationId": named}, scope=f"events:write:any {WRITING}")
    for path, method in product(reads(app), ("GET", "HEAD")):
        answer = send(path, method, wide, {})
        assert (path, answer.status_code) == (path, 403)
        check_nothing_of_theirs(answer)


@pytest.mark.usefixtures("both_tenants")
def test_with_the_scope_for_all_each_read_is_the_named_ones(app, send, database):
    """The answer is the one that the named organization gets; the caller needs none of its own."""
    scope = f"analytics:read:any {WRITING}"
    key = with_key(created(database, "analytics:read:any", tenant=None)[1])
    named = {"organizationId": THEIRS}
    callers = (
        other(query=named, scope=scope),
        other(query=named, scope=scope, claims={"drop": "organization_id"}),
        other(query=named, headers=key),
    )
    for path, parameters in product(reads(app), QUERIES.values()):
        theirs = send(path, "GET", other(), parameters, THEIRS)
        for caller in callers:
            assert shown(send(path, "GET", caller, parameters)) == shown(theirs), path
        ours = send(path, "GET", other(), parameters)
        assert shown(send(path, "GET", other(scope=scope), parameters)) == shown(ours)


@pytest.mark.usefixtures("both_tenants")
def test_the_scope_for_all_is_for_reads_alone(app, send):
    """Other routes ignore the parameter, and the scope opens none of them but the list of all."""
    named = {"organizationId": THEIRS}
    for path, method in walk(app):
        if path in OF_OPERATORS:
            continue
        if path not in reads(app) or method not in ("GET", "HEAD", "OPTIONS"):
            for scope in (WRITING, "analytics:read:any", f"analytics:read:any {WRITING}"):
                answer = send(path, method, other(query=named, scope=scope), {})
                check_nothing_of_theirs(answer)
                plain = scope.removeprefix("analytics:read:any").strip()
                assert shown(answer) == shown(send(path, method, other(scope=plain), {})), path


@pytest.mark.usefixtures("both_tenants")
def test_the_list_of_all_needs_the_scope_for_all(app, send):
    """With it the list shows what is looked for here, and without it no organization at all."""
    scopes = ("", "analytics:read", f"events:write:any {WRITING}", "analytics:read:anything")
    for path, method in walk(app):
        if path in OF_OPERATORS and method in ("GET", "HEAD"):
            for scope, query in product(scopes, QUERIES.values()):
                for tenant in (OURS, THEIRS):
                    answer = send(path, method, other(scope=scope), query, tenant)
                    assert (path, answer.status_code) == (path, 403)
                    assert THEIRS not in answer.text
            wide = send(path, method, other(scope="analytics:read:any"), {})
            assert wide.status_code == 200
            assert method == "HEAD" or (THEIRS in wide.text and "821" in wide.text)


@pytest.mark.usefixtures("both_tenants")
@pytest.mark.parametrize("named", ["", "a\x00", "x" * 256])
def test_an_invalid_organization_is_refused_by_name(app, send, named):
    wide = other(query={"organizationId": named}, scope="analytics:read:any")
    for path in reads(app):
        answer = send(path, "GET", wide, {})
        assert (path, answer.status_code) == (path, 400)
        assert answer.json["details"] == {"parameter": "organizationId"}


@pytest.mark.usefixtures("both_tenants")
def test_a_reader_of_all_without_an_organization_names_one(app, send):
    alone = other(scope="analytics:read:any", claims={"drop": "organization_id"})
    for path in reads(app):
        answer = send(path, "GET", alone, {})
        assert (path, answer.status_code) == (path, 403)
        assert "organizationId" in answer.json["message"]


@pytest.mark.usefixtures("both_tenants")
def test_a_key_reads_as_a_token_of_its_organization(app, client, send, database):
    """A key gets the answers that a token gets, and nothing of another organization."""
    scopes = [scope for scope in SCOPES if not scope.endswith(":any")]
    headers = with_key(created(database, *scopes, tenant=OURS)[1])
    created(database, *scopes, tenant=THEIRS, note=THEIRS)
    assert client.get(AGENTS, headers=headers).status_code == 200  # the day of its last use
    for (path, method), parameters in product(walk(app), QUERIES.values()):
        plain = send(path, method, other(), parameters)
        answer = send(path, method, other(headers=headers), parameters)
        check_nothing_of_theirs(answer)
        assert (path, method, *shown(answer)) == (path, method, *shown(plain))


@pytest.mark.usefixtures("both_tenants")
def test_without_its_claim_a_token_is_for_no_tenant(app, send):
    for (path, method), claim in product(demanding(app), [None, *CLAIMS]):
        claims = {"drop": "organization_id"} | ({claim: THEIRS} if claim else {})
        answer = send(path, method, other(claims=claims), {})
        assert (path, claim, answer.status_code) == (path, claim, 403)
        assert method == "HEAD" or answer.json["code"] == "FORBIDDEN"
        check_nothing_of_theirs(answer)


def test_every_route_not_named_as_public_needs_a_token(app, client):
    """Every route that is not named as public gets 401 without a token."""
    for path, method in walk(app):
        answer = client.open(path, method=method, json=BODIES.get(path))
        assert (path, answer.status_code) == (path, 200 if path in PUBLIC else 401)


def test_the_walk_fails_on_an_unknown_route_variable():
    """The walk over the routes fails if it does not know a route's variable."""
    app = Flask(__name__)
    app.add_url_rule("/api/v1/things/<int:thing>", "thing", methods=["DELETE"])
    with pytest.raises(AssertionError, match=r"/api/v1/things/<int:thing>: give .*\['thing'\]"):
        walk(app)


@pytest.mark.usefixtures("both_tenants")
def test_tenants_may_use_the_same_event_id(client, database):
    """An event id that another tenant uses is new to us, and their event stays."""
    theirs = select(issuance_events).where(issuance_events.c.tenant_id == THEIRS)
    with database.reading() as connection:
        before = connection.execute(theirs).all()
    event = {"id": "shared-700", "agentId": THEIR_AGENT, "issuedAt": MORNING}
    assert event["id"] in {row.event_id for row in before}
    answer = client.post(EVENTS, json=event, headers=bearer(OURS, "events:write"))
    assert answer.json == {"received": 1, "accepted": 1, "duplicates": 0}
    with database.reading() as connection:
        assert connection.execute(theirs).all() == before


@pytest.mark.usefixtures("both_tenants")
def test_requests_at_once_each_see_their_own_tenant(app, send):
    routes = [(path, method) for path, method in walk(app) if method == "GET"]
    plain = {
        (path, tenant): shown(send(path, method, other(), {}, tenant))
        for (path, method), tenant in product(routes, (OURS, THEIRS))
    }

    def ask(place):
        path, tenant = place
        answer = app.test_client().get(path, headers=bearer(tenant, WRITING))
        return place, shown(answer)

    with ThreadPoolExecutor(8) as pool:
        assert all(plain[place] == answer for place, answer in pool.map(ask, [*plain] * 20))


@pytest.mark.parametrize("claims", [{}, {"org_id": OURS}, {"org_id": None}], ids=str)
def test_the_claim_that_a_setting_names_is_the_only_one(database_url, claims):
    app = create_app(make_settings(database_url, JWT_ORGANIZATION_CLAIM="org_id"))
    for path, method in demanding(app):
        if path in OF_OPERATORS:  # of no organization
            continue
        headers = bearer(THEIRS, WRITING, **claims)
        answer = app.test_client().open(path, method=method, headers=headers, json=BODIES.get(path))
        assert (answer.status_code == 403) == (claims.get("org_id") is None)
        assert not answer.is_json or method == "HEAD" or answer.json.get("tenantId", OURS) == OURS
        check_nothing_of_theirs(answer)
    app.extensions["analytics"].database.dispose()
