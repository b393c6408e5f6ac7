"""Keycloak: REST, the table as CSV, and the server's log as text and JSON."""

import csv
import io
import json
from typing import Any

import pytest

from tests.app.intake.formats.reading import events, lines, read, reasons

REALM = "f16e7899-0000-4000-8000-000000000001"
KINDS = [
    "CLIENT_LOGIN",
    "CODE_TO_TOKEN",
    "REFRESH_TOKEN",
    "TOKEN_EXCHANGE",
    "OAUTH2_DEVICE_CODE_TO_TOKEN",
    "AUTHREQID_TO_TOKEN",
    "PERMISSION_TOKEN",
    "OAUTH2_EXTENSION_GRANT",
    "JWT_BEARER",
]


def rest(number: int, kind: str = "CLIENT_LOGIN", **members: Any) -> dict[str, Any]:
    """A record of ``GET /admin/realms/{realm}/events``."""
    return {
        "id": f"event-{number}",
        "time": 1709251200012 + number,
        "type": kind,
        "realmId": REALM,
        "clientId": "invoice-agent",
        "userId": "10000000-0000-4000-8000-000000000001",
        "ipAddress": "192.0.2.1",
        "details": {"token_id": f"trrtcc:{number}", "grant_type": "client_credentials"},
    } | members


def message(number: int, kind: str = "CLIENT_LOGIN", **pairs: str) -> str:
    """The message of the event listener, since version 23 with quotation marks."""
    whole = {
        "type": kind,
        "realmId": REALM,
        "realmName": "acme",
        "clientId": "invoice-agent",
        "userId": "null",
        "ipAddress": "192.0.2.1",
        "token_id": f"trrtcc:{number}",
        "grant_type": "client_credentials",
        "scope": "email profile",
    } | pairs
    return ", ".join(f'{name}="{value}"' for name, value in whole.items())


def console(text: str, at: str = "2024-03-01 00:00:00,012") -> str:
    return f"{at} DEBUG [org.keycloak.events] (executor-thread-1) {text}\n"


def quarkus(text: str, at: str = "2024-03-01T05:30:00.012345678+05:30", **members: Any) -> str:
    record = {"timestamp": at, "loggerName": "org.keycloak.events", "message": text}
    return json.dumps(record | members) + "\n"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_token_counts(kind: str) -> None:
    """Each event type that issues a token counts, in every source."""
    for text in (
        lines(rest(1, kind)),
        console(message(1, kind)),
        quarkus(message(1, kind)),
        table(rest(1, kind)),
    ):
        (event,) = events(read("keycloak", text, "UTC"))
        assert (event.event_id, event.agent_id) == ("trrtcc:1", "invoice-agent")
        assert str(event.issued_at).startswith("2024-03-01 00:00:00.01")


def test_other_events_do_not_count() -> None:
    """Logins, introspection and logouts are no issuances; errors are failures."""
    outcomes = read(
        "keycloak",
        json.dumps(
            [
                rest(1, "LOGIN", details={"token_id": "t", "auth_type": "code"}),
                rest(2, "LOGOUT"),
                rest(3, "INTROSPECT_TOKEN"),
                rest(4, "CLIENT_LOGIN_ERROR", error="invalid_client_credentials"),
                {"operationType": "CREATE", "realmId": REALM, "resourceType": "CLIENT", "time": 1},
                rest(6, "LOGIN", details={"token_id": "t6", "grant_type": "password"}),
            ]
        ),
    )
    assert [event.event_id for event in events(outcomes)] == ["t6"]
    assert reasons(outcomes) == {"no issuance": 3, "failed": 1, "not an event of this format": 1}


def test_the_id_of_an_old_version_is_the_token_or_event() -> None:
    """Version 20 has no event id; without a token's id, the event's id is used."""
    old = rest(1)
    del old["id"]
    newer = rest(2, details={"grant_type": "client_credentials"})
    neither = rest(3, details=None)
    del neither["id"]
    outcomes = read("keycloak", lines(old, newer, neither))
    assert [event.event_id for event in events(outcomes)] == ["trrtcc:1", "event-2"]
    assert reasons(outcomes) == {"no id": 1}


def table(
    *records: dict[str, Any], long: bool = False, separator: str = ",", nothing: str = ""
) -> str:
    """``EVENT_ENTITY`` as PostgreSQL's ``COPY … CSV HEADER`` writes it."""
    file = io.StringIO()
    writer = csv.writer(file, delimiter=separator, lineterminator="\n")
    writer.writerow(
        [
            "id",
            "client_id",
            "details_json",
            "error",
            "ip_address",
            "realm_id",
            "session_id",
            "event_time",
            "type",
            "user_id",
            "details_json_long_value",
        ]
    )
    for one in records:
        details = json.dumps(one["details"])
        row = [one["id"], one["clientId"], "" if long else details, one.get("error"), "192.0.2.1"]
        row += [one["realmId"], "", one["time"], one["type"], "", details if long else ""]
        writer.writerow([cell or nothing for cell in row])
    return file.getvalue()


def test_the_table_counts_as_rest_does() -> None:
    """A CSV dump of the table has the ids of REST, also with long details or in capitals."""
    password = rest(3, "LOGIN", details={"token_id": "t3", "grant_type": "password"})
    records = [rest(1), rest(2, "LOGIN"), rest(4, "CODE_TO_TOKEN_ERROR", error="x"), password]
    expected = events(read("keycloak", json.dumps(records)))
    assert [event.event_id for event in expected] == ["trrtcc:1", "t3"]
    for text in (
        table(*records),
        table(*records, long=True),
        table(*records, separator=";"),
        table(*records, separator="\t"),
    ):
        assert events(read("keycloak", text)) == expected
    head, _, rest_of_it = table(*records).partition("\n")
    assert events(read("keycloak", f"{head.upper()}\n{rest_of_it}")) == expected


@pytest.mark.parametrize("nothing", ["NULL", r"\N"])
def test_a_null_of_the_table_is_no_value(nothing: str) -> None:
    """Databases write a word for a cell without a value; it is no error of the event."""
    failed = rest(2, "CLIENT_LOGIN_ERROR", error="x")
    outcomes = read("keycloak", table(rest(1), failed, nothing=nothing))
    assert [event.event_id for event in events(outcomes)] == ["trrtcc:1"]
    assert reasons(outcomes) == {"failed": 1}


def test_details_that_are_cut_are_refused() -> None:
    """A token whose details cannot be read has another id elsewhere, so it is not counted."""
    head, row = table(rest(1)).splitlines()
    broken = row.replace('client_credentials""}', "client_")
    assert reasons(read("keycloak", f"{head}\n{broken}\n")) == {"unreadable": 1}


def test_all_sources_have_one_id_and_organization() -> None:
    """The same token in REST and logs is one event, if one organization is given."""
    sources = (
        lines(rest(0)),
        table(rest(0)),
        console(message(0)),
        quarkus(message(0)),
        "<15>1 2024-03-01T05:30:00.014+05:30 host keycloak 81 org.keycloak.events - "
        + quarkus(message(0)),
        lines({"@timestamp": "2024-03-01T00:00:00.012Z", "log.logger": "org.keycloak.events"})[:-2]
        + f', "message": {json.dumps(message(0))}}}\n',
        lines({"@timestamp": "2024-03-01T00:00:00.012Z", "log": {"logger": "org.keycloak.events"}})[
            :-2
        ]
        + f', "message": {json.dumps(message(0))}}}\n',
    )
    found = {
        (event.tenant_id, event.event_id, event.agent_id, str(event.issued_at)[:23])
        for source in sources
        for event in events(read("keycloak", source, "UTC", organization="acme"))
    }
    assert found == {("acme", "trrtcc:0", "invoice-agent", "2024-03-01 00:00:00.012")}
    for source in sources:
        assert len(events(read("keycloak", source, "UTC", organization="acme"))) == 1


def test_lines_of_other_loggers_are_skipped() -> None:
    """Other lines of the server's log are no events, whatever they contain."""
    text = (
        "2024-03-01 00:00:00,101 INFO  [io.quarkus] (main) Keycloak 26.2.2 started in 8.749s.\n"
        "\n\tat org.keycloak.services.DefaultKeycloakSession.getProvider(A.java:100)\n"
        f"2024-03-01 00:00:00,1 WARN  [org.keycloak.services] (x) {message(1)}\n"
        f"2024-03-01 00:00:00,1 WARN  [other] (x) [org.keycloak.events] (x) {message(1)}\n"
        f"{message(1)}\n"
        + quarkus(message(1), loggerName="org.keycloak.services")
        + quarkus("KC-SERVICES0015: Failed admin=x", loggerName="org.keycloak.services")
    )
    assert reasons(read("keycloak", text, "UTC")) == {"not an event of this format": 7}


SYSLOG = "<15>1 2024-03-01T05:30:00.014+05:30 host keycloak 81 org.keycloak.events - "


@pytest.mark.parametrize(
    "text",
    [
        lines(rest(1))[:-30] + "\n",
        "  " + lines(rest(1))[:-30] + "\n",
        lines(rest(1)).replace("invoice-agent", "\\x").rstrip(),
        lines(rest(1)).encode().replace(b"invoice-agent", b"\xff"),
        json.dumps([rest(1)]).replace('"time": 1', '"time": x') + "\n",
        json.dumps([rest(1)], indent=1).replace('"time": 1', '"time": x') + "\n",
        SYSLOG + quarkus(message(1))[:-30] + "\n",
        SYSLOG.encode() + quarkus(message(1)).encode().replace(b"invoice-agent", b"\xff"),
    ],
    ids=range(8),
)
def test_broken_json_is_not_a_line_of_others(text: str | bytes) -> None:
    """A cut or malformed record is refused and named, because its token is lost otherwise."""
    data = (text if isinstance(text, bytes) else text.encode()) + b"\n" + lines(rest(2)).encode()
    outcomes = read("keycloak", data, "UTC")
    assert outcomes[0] == "unreadable"
    assert [event.event_id for event in events(outcomes)] == ["trrtcc:2"]


def unquoted(number: int, kind: str, client_id: str) -> str:
    """A line as versions up to 22 write it."""
    return console(
        f"type={kind}, realmId={REALM}, clientId={client_id}, userId=null, ipAddress=192.0.2.1,"
        f" token_id=t{number}, grant_type=client_credentials, scope='email profile', username=x"
    )


def test_lines_without_quotation_marks_are_read() -> None:
    (event,) = events(read("keycloak", unquoted(1, "CLIENT_LOGIN", "my agent"), "UTC"))
    assert (event.tenant_id, event.event_id, event.agent_id) == (REALM, "t1", "my agent")


@pytest.mark.parametrize(
    "client_id",
    [
        "x, type=CLIENT_LOGIN, clientId=other",
        "x, realmName=victim, realmId=victim, clientId=other",
        'x", type="CLIENT_LOGIN", realmName="victim", clientId="other',
        "x type=CLIENT_LOGIN clientId=other realmName=victim",
        "x;clientId=other;realmName=victim",
        "type=CLIENT_LOGIN",
        "clientId=other",
        "realmName=victim, clientId=other",
    ],
)
def test_a_forged_client_counts_for_nobody_else(client_id: str) -> None:
    """A client's id cannot make a failure a token, nor count for another client or realm."""
    failure = read("keycloak", unquoted(1, "CLIENT_LOGIN_ERROR", client_id), "UTC")
    assert failure == ["failed"]
    quoted = console(message(2, "CLIENT_LOGIN_ERROR", clientId=client_id.replace('"', r"\"")))
    assert read("keycloak", quoted, "UTC") == ["failed"]
    for event in events(read("keycloak", unquoted(3, "CLIENT_LOGIN", client_id), "UTC")):
        assert event.tenant_id == REALM
        assert event.agent_id != "other"


def test_a_zone_is_needed_for_text_alone() -> None:
    """The console's times have no offset. JSON and REST need no zone."""
    assert reasons(read("keycloak", console(message(1)))) == {"unusable time": 1}
    (berlin,) = events(read("keycloak", console(message(1)), "Europe/Berlin"))
    assert str(berlin.issued_at) == "2024-02-29 23:00:00.012000+00:00"
    assert len(events(read("keycloak", quarkus(message(1)) + lines(rest(1))))) == 2
    assert reasons(read("keycloak", console(message(1), at="09:00:00,012"), "UTC")) == {
        "no time": 1
    }
