"""API keys: which are accepted, what they may do, and what an attempt costs."""

import re
import time
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from app.auth import allowances as all_allowances
from app.auth import api_key_verifier, token_cache
from app.auth.allowances import Allowances
from app.auth.api_keys import (
    KEY_SYNTAX,
    SCOPES,
    keys_of,
    new_key,
    refuse_wider_scopes,
    revoke_key,
    store_key,
)
from app.errors import ForbiddenError, RateLimitError, ValidationError
from app.storage.tables import api_keys
from tests.support.api_keys import created, with_key
from tests.support.settings import NOW, TENANT
from tests.support.statements import watched
from tests.support.tokens import bearer

TOKENS = "/api/v1/analytics/tokens?days=1"
DIRECTORY = "/api/v1/agents"
EVENTS = "/api/v1/events"
EVENT = {"id": "e", "agentId": "a", "issuedAt": "2026-04-14T09:00:00Z"}
UNKNOWN = "agk_" + "u" * 44


@pytest.fixture
def read(client):
    """The status of a read with these credentials."""

    def read(text, path=TOKENS, **environ):
        headers = {"Authorization": text}
        return client.get(path, headers=headers, environ_overrides=environ).status_code

    return read


@pytest.fixture
def clock(monkeypatch):
    """Moves the clock of the caches and the allowances on."""
    passed = [0.0]
    steady = time.monotonic
    monkeypatch.setattr(token_cache.time, "monotonic", lambda: steady() + passed[0])

    def move(seconds):
        passed[0] += seconds

    return move


@contextmanager
def sent(database):
    """The texts of the statements within."""
    texts = []
    with watched(database, lambda _connection, text, _values: texts.append(text)):
        yield texts


def stored(database):
    with database.reading() as connection:
        return connection.execute(sa.select(api_keys)).all()


def test_a_key_is_long_and_random_and_not_stored(database):
    """The database has the id and a hash, from which nobody gets the key."""
    (one, text), (other, _) = created(database), created(database)
    assert KEY_SYNTAX.fullmatch(text)
    assert one.id != other.id
    assert text.startswith(one.prefix)
    secret = text.removeprefix(one.prefix)
    assert len(secret) == 32
    assert secret not in repr(stored(database))


@pytest.mark.parametrize("form", ["Bearer {}", "bearer  {}", "BEARER {}", "{}"])
def test_a_key_is_accepted_with_and_without_bearer(database, read, form):
    """Some services send only the value of a form for a token."""
    assert read(form.format(created(database)[1])) == 200


def hostile(text):
    """Credentials that look like this key, or like any key, and are none."""
    return {
        "without its prefix": f"Bearer {text[4:]}",
        "its prefix in capitals": f"Bearer AGK_{text[4:]}",
        "in lower case": f"Bearer {text.lower()}",
        "cut": f"Bearer {text[:-1]}",
        "longer": f"Bearer {text}a",
        "another secret": f"Bearer {text[:-1]}{'a' if text[-1] != 'a' else 'b'}",
        "another id": f"Bearer agk_{'z' * 12}{text[16:]}",
        "its prefix alone": f"Bearer {text[:16]}",
        "nothing but agk_": "Bearer agk_",
        "bare agk_": "agk_",
        "padded": f"Bearer {text}=",
        "twice": f"Bearer {text}, Bearer {text}",
        "two without a scheme": f"{text},{text}",
        "after a token": f"Bearer x.y.z {text}",
        "in quotes": f'Bearer "{text}"',
        "as Basic": f"Basic {text}",
        "as Token": f"Token {text}",
        "as a parameter": f"Bearer token={text}",
        "a NUL": f"Bearer {text}\0",
        "an umlaut": f"Bearer {text[:-1]}\xe4",
        "Arabic digits": "Bearer agk_" + "\u0663".encode().decode("latin-1") * 22,
        "very long": "Bearer agk_" + "a" * 100_000,
        "a wildcard": "Bearer agk_" + "%" * 44,
        "SQL": "Bearer agk_' OR 1=1 --",
        "dots": f"Bearer {text[:16]}.{text[17:]}",
    }


@pytest.mark.parametrize("name", hostile("agk_" + "a" * 44))
def test_what_is_not_exactly_a_key_is_refused(database, read, name):
    """Every other text is 401, whatever it looks like."""
    text = created(database)[1]
    assert read(hostile(text)[name]) == 401
    assert read(f"Bearer {text}") == 200


def test_a_malformed_key_costs_no_query(app, read):
    """Only a text that could be a key is looked up."""
    with sent(app.extensions["analytics"].database) as statements:
        assert read("Bearer agk_short") == 401
    assert statements == []


def test_an_unknown_key_is_looked_up_once(app, read):
    """A shipper with a wrong key repeats it all day."""
    with sent(app.extensions["analytics"].database) as statements:
        assert [read(UNKNOWN) for _ in range(5)] == [401] * 5
    assert len([text for text in statements if "api_keys" in text]) == 1


def test_different_unknown_keys_soon_have_to_wait(app, client, database, read):
    """An address may ask for few unknown keys; others are not affected."""
    known = created(database)[1]
    assert read(known) == 200
    with sent(app.extensions["analytics"].database) as statements:
        statuses = [read(f"agk_{number:044}") for number in range(all_allowances.UNKNOWN + 30)]
    assert statuses == [401] * all_allowances.UNKNOWN + [429] * 30
    assert len([text for text in statements if "api_keys" in text]) == all_allowances.UNKNOWN
    answer = client.get(TOKENS, headers=with_key(UNKNOWN))
    assert answer.json["code"] == "RATE_LIMIT_EXCEEDED"
    assert int(answer.headers["Retry-After"]) >= 1
    assert read(UNKNOWN, REMOTE_ADDR="192.0.2.7") == 401
    assert client.get(TOKENS, headers=bearer()).status_code == 200


def test_a_key_that_was_valid_does_not_wait_for_others(database, read, clock):
    """Behind a proxy all callers may have one address, an attacker included."""
    known = created(database)[1]
    assert read(known) == 200
    statuses = {read(f"agk_{number:044}") for number in range(all_allowances.UNKNOWN + 1)}
    assert statuses == {401, 429}
    clock(61)
    again = [read(f"agk_x{number:043}") for number in range(all_allowances.UNKNOWN + 1)]
    assert again[-1] == 429
    assert read(known) == 200


def test_an_allowance_comes_back_with_time(clock):
    """Clients are few, whatever addresses they invent; a network of IPv6 is one client."""
    allowances = Allowances("unknown keys")
    for number in range(all_allowances.UNKNOWN):
        allowances.check(f"2001:db8::{number}")
        allowances.use(f"2001:db8::{number}")
    with pytest.raises(RateLimitError) as refused:
        allowances.check("2001:db8::ffff%eth0")
    assert refused.value.seconds == 3
    allowances.check("2001:db8:1::1")
    clock(3.1)
    allowances.check("2001:db8::1")
    for number in range(10_000):
        allowances.use(f"{number}")
    assert len(allowances._whole_at) <= all_allowances.MAX_CLIENTS


def test_a_revoked_key_stops_within_a_minute(database, read, clock):
    """Each process may remember a key, but for less than a minute."""
    key, text = created(database)
    assert read(text) == 200
    revoked = revoke_key(database, key.id, NOW, by="tester")
    assert revoked.revoked == NOW
    clock(31)
    assert read(text) == 401
    assert revoke_key(database, key.id, NOW + timedelta(days=1), by="tester").revoked == NOW


def test_a_key_that_has_expired_is_refused(database, client):
    """The owner of the key learns why; with another secret nobody does."""
    before = NOW - timedelta(days=2)
    key, text = created(database, now=before, expires=NOW)
    answer = client.get(TOKENS, headers=with_key(text))
    assert (answer.status_code, answer.json["message"]) == (
        401,
        "the key has expired; create another key",
    )
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
    wrong = client.get(TOKENS, headers=with_key(key.prefix + "a" * 32))
    assert wrong.json["message"] == "the key is invalid; create another key"
    _, later = created(database, now=before, expires=NOW + timedelta(seconds=1))
    assert client.get(TOKENS, headers=with_key(later)).status_code == 200


def test_a_cached_key_ends_when_it_says(app, database):
    """The cache never keeps a key past its end."""
    moment = [datetime.now(UTC)]
    verifier = api_key_verifier.ApiKeyVerifier(database, lambda: moment[0])
    _, text = created(database, now=moment[0], expires=moment[0] + timedelta(seconds=0.2))
    with app.app_context():
        assert verifier.verify(text, "").tenant_id == TENANT
        time.sleep(0.25)
        moment[0] = datetime.now(UTC)
        with pytest.raises(Exception, match="expired"):
            verifier.verify(text, "")


def test_an_unavailable_database_is_503_and_not_401(app, client, database, monkeypatch):
    """A shipper repeats a batch after 503, and gives up after 401."""
    text = created(database)[1]

    def away(*_, **__):
        raise OperationalError("SELECT", {}, Exception("the server is unavailable"))

    monkeypatch.setattr(app.extensions["analytics"].database, "reading", away)
    answer = client.get(TOKENS, headers=with_key(text))
    assert (answer.status_code, answer.json["code"]) == (503, "SERVICE_UNAVAILABLE")
    assert "Retry-After" in answer.headers


def test_a_schema_without_keys_is_503(app, client, database):
    """While the schema is still that of the previous version, tokens work, and keys soon will."""
    database.write(lambda connection: connection.execute(sa.text("DROP TABLE api_keys")))
    answer = client.get(TOKENS, headers=with_key(UNKNOWN))
    assert answer.status_code == 503
    assert "flask db upgrade" in answer.json["message"]
    assert client.get(TOKENS, headers=bearer()).status_code == 200


def allowed(client, text):
    """What a key may do: of a read, the directory, an event, a name and a list of keys."""
    headers = with_key(text)
    answers = {
        "read": client.get(TOKENS, headers=headers),
        "csv": client.get("/api/v1/analytics/tokens.csv", headers=headers),
        "directory": client.get(DIRECTORY, headers=headers),
        "event": client.post(EVENTS, json=EVENT, headers=headers),
        "name": client.put(f"{DIRECTORY}/a", json={"name": "n"}, headers=headers),
        "keys": client.get("/api/v1/keys", headers=headers),
    }
    statuses = {answer.status_code for answer in answers.values()}
    assert statuses <= {200, 202, 403}
    return {name for name, answer in answers.items() if answer.status_code != 403}


@pytest.mark.parametrize(
    ("scope", "rights"),
    [
        ("analytics:read", {"read", "csv", "directory"}),
        ("events:write", {"event"}),
        ("agents:write", {"name"}),
        ("analytics:admin", {"keys"}),
    ],
)
def test_a_key_may_do_what_its_scopes_say(database, client, scope, rights):
    """Unlike a token, a key needs a scope for reads."""
    assert allowed(client, created(database, scope)[1]) == rights


def test_a_key_with_every_scope_may_do_everything(database, client):
    scopes = [scope for scope in SCOPES if not scope.endswith(":any")]
    everything = {"read", "csv", "directory", "event", "name", "keys"}
    assert allowed(client, created(database, *scopes)[1]) == everything


def test_a_key_of_every_organization_writes_for_any(database, client):
    """It names an organization with each event, and reads nothing."""
    text = created(database, "events:write:any", tenant=None)[1]
    events = [EVENT | {"organizationId": name} for name in ("org-a", "org-b")]
    answer = client.post(EVENTS, json=events, headers=with_key(text))
    assert answer.json["accepted"] == 2
    assert client.post(EVENTS, json=EVENT, headers=with_key(text)).status_code == 400
    for path in (TOKENS, DIRECTORY, "/api/v1/keys"):
        assert client.get(path, headers=with_key(text)).status_code == 403


def test_a_key_writes_for_its_organization_only(database, client):
    text = created(database, "events:write")[1]
    foreign = client.post(EVENTS, json=EVENT | {"organizationId": "org-b"}, headers=with_key(text))
    assert foreign.status_code == 403
    own = client.post(EVENTS, json=EVENT | {"organizationId": TENANT}, headers=with_key(text))
    assert own.json["accepted"] == 1


def test_a_key_in_a_parameter_or_a_cookie_is_none(database, client):
    text = created(database)[1]
    client.set_cookie("access_token_cookie", text)
    for query in ({"access_token": text}, {"key": text}, {"api_key": text}):
        assert client.get("/api/v1/agents", query_string=query).status_code == 401
    assert client.get(TOKENS, headers={"X-Api-Key": text}).status_code == 401


def test_the_last_use_is_stored_once_a_day(app, database, read):
    """A day is enough to find keys that nobody uses, and costs one write a day."""
    text = created(database)[1]
    with sent(app.extensions["analytics"].database) as statements:
        assert [read(text) for _ in range(3)] == [200] * 3
    assert len([one for one in statements if one.startswith("UPDATE")]) == 1
    assert stored(database)[0].last_used == date(2026, 4, 15)
    with app.app_context(), sent(database) as statements:
        verifier = api_key_verifier.ApiKeyVerifier(database, lambda: NOW)
        verifier.verify(text, "")
        assert not [one for one in statements if one.startswith("UPDATE")]
        tomorrow = NOW + timedelta(days=1)
        verifier = api_key_verifier.ApiKeyVerifier(database, lambda: tomorrow)
        verifier.verify(text, "")
    assert stored(database)[0].last_used == date(2026, 4, 16)


def test_a_read_does_not_fail_with_the_last_use(app, database, read, monkeypatch, caplog):
    """A standby and a full disk take no writes, but a key still reads."""
    tried = []

    def refused(*_):
        tried.append(1)
        raise OperationalError("UPDATE", {}, Exception("read-only"))

    monkeypatch.setattr(app.extensions["analytics"].database, "write_briefly", refused)
    for _ in range(3):
        assert read(created(database)[1]) == 200
    assert len(tried) == 1
    assert "last use of a key not stored" in caplog.text


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # PostgreSQL locks rows
def test_a_locked_database_delays_a_read_by_a_moment(app, database, read):
    """On SQLite another writer may hold the only lock for long."""
    text = created(database)[1]
    with database.engine.connect() as writer:
        writer.exec_driver_sql("COMMIT")
        writer.exec_driver_sql("BEGIN IMMEDIATE")
        assert read(text) == 200
        writer.exec_driver_sql("ROLLBACK")
    assert stored(database)[0].last_used is None


INVALID = {
    "no scope": ((), {}),
    "an unknown scope": (("everything",), {}),
    "a scope with a space": (("events:write agents:write",), {}),
    "a past end": (("events:write",), {"expires": NOW}),
    "an empty note": (("events:write",), {"note": ""}),
    "a long note": (("events:write",), {"note": "n" * 256}),
    "a note of lines": (("events:write",), {"note": "a\nb"}),
}


@pytest.mark.parametrize("name", INVALID)
def test_an_invalid_key_is_not_created(name):
    scopes, members = INVALID[name]
    with pytest.raises(ValidationError):
        new_key(TENANT, scopes, NOW, **members)


def test_a_key_of_every_organization_has_wide_scopes_only():
    """Any other scope would need an organization, and would never work."""
    with pytest.raises(ValidationError, match="needs an organization"):
        new_key(None, ["events:write:any", "analytics:read"], NOW)
    assert new_key(None, ["events:write:any"], NOW).tenant_id is None


def test_a_key_has_no_scope_that_its_creator_lacks():
    own = {"analytics:admin", "analytics:read", "events:write:any"}
    refuse_wider_scopes(["analytics:read", "analytics:admin"], own)
    refuse_wider_scopes(["events:write"], own)
    with pytest.raises(ForbiddenError):
        refuse_wider_scopes(["agents:write"], own)


def test_a_key_of_one_organization_has_no_wide_scope():
    with pytest.raises(ForbiddenError, match="flask keys create --any"):
        new_key(TENANT, ["events:write", "events:write:any"], NOW)


def test_usable_keys_come_first_in_a_list(database):
    """A list of many revoked keys still shows each usable one."""
    for number in range(3):
        key = new_key(TENANT, ["analytics:read"], NOW + timedelta(minutes=number))
        store_key(database, key, by="tester")
        if number != 0:
            revoke_key(database, key.id, NOW + timedelta(hours=1), by="tester")
    created(database, tenant="org-b")
    with database.reading() as connection:
        found = keys_of(connection, TENANT, NOW)
    assert [key.created.minute - NOW.minute for key in found] == [0, 2, 1]


def test_the_caller_is_named_by_the_id_of_the_key(app, database, caplog):
    """Logs name the key, so that its owner can be found."""
    key, text = created(database)
    caplog.set_level("INFO", "app.request")
    app.test_client().get(TOKENS, headers=with_key(text))
    (line,) = [one.fields for one in caplog.records if one.name == "app.request"]
    assert (line["tenant"], line["client_id"]) == (TENANT, f"key:{key.id}")
    shown = caplog.text + repr([vars(record) for record in caplog.records])
    assert not re.search(r"agk_[0-9A-Za-z]{13}", shown)
