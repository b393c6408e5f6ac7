"""I3: logs of identity providers from files, compared with the service's own events."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.bench import Bench
from benchmarks.figures import (
    BenchmarkError,
    Figure,
    Rival,
    Samples,
    below,
    faster,
    seconds,
)
from benchmarks.programs import Ended, flask

RECORDS = 200_000  # of each format
FIRST = datetime(2024, 1, 1, tzinfo=UTC)
AGENTS, TENANTS = 200, 20
NATIVE = "native"


def _at(number: int) -> datetime:
    return FIRST + timedelta(milliseconds=100 * number)


def _iso(number: int) -> str:
    return _at(number).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _agent(number: int) -> str:
    return f"a97b95a1-0000-4000-8000-{number % AGENTS:012}"


def _tenant(number: int) -> str:
    return f"4d3bac44-0000-4000-8000-{number % TENANTS:012}"


def _id(number: int) -> str:
    return f"8bf0630f-{number % 65536:04x}-4000-8000-{number:012}"


def _native(number: int) -> dict[str, Any]:
    return {
        "id": _id(number),
        "organizationId": _tenant(number),
        "agentId": _agent(number),
        "issuedAt": _iso(number),
    }


def _entra(number: int) -> dict[str, Any]:
    nothing = dict.fromkeys(("riskDetail", "riskState", "conditionalAccessStatus"), "notApplied")
    return {
        "time": _iso(number + 600),
        "resourceId": f"/tenants/{_tenant(number)}/providers/Microsoft.aadiam",
        "operationName": "Sign-in activity",
        "category": "ServicePrincipalSignInLogs",
        "tenantId": _tenant(number),
        "resultType": "0",
        "properties": {
            "id": _id(number),
            "createdDateTime": _iso(number).replace("Z", "1234+00:00"),
            "appId": _agent(number),
            "servicePrincipalName": "Invoice agent",
            "status": {"errorCode": 0},
            "location": {"city": "", "geoCoordinates": {"latitude": 0.0, "longitude": 0.0}},
            "authenticationProcessingDetails": [{"key": "a" * 20, "value": "b" * 40}] * 4,
            **nothing,
        },
    }


def _auth0(number: int) -> dict[str, Any]:
    log_id = f"90020240101{number:045}"
    return {
        "log_id": log_id,
        "data": {
            "date": _iso(number),
            "type": "seccft",
            "description": "Client Credentials for Access Token",
            "client_id": _agent(number),
            "client_name": "Invoice agent",
            "ip": "192.0.2.1",
            "user_agent": "python-requests/2.32",
            "hostname": "acme.eu.auth0.com",
            "organization_id": _tenant(number),
            "audience": "https://api.example.com",
            "scope": "read:data",
            "log_id": log_id,
            "isMobile": False,
        },
    }


def _okta(number: int) -> dict[str, Any]:
    return {
        "actor": {"id": _agent(number), "type": "PublicClientApp", "displayName": "Invoice agent"},
        "client": {"userAgent": {"rawUserAgent": "python-requests/2.32"}, "ipAddress": "192.0.2.1"},
        "displayMessage": "OAuth2 access token is granted",
        "eventType": "app.oauth2.as.token.grant.access_token",
        "outcome": {"result": "SUCCESS", "reason": None},
        "published": _iso(number),
        "debugContext": {"debugData": {"grantType": "client_credentials", "requestId": "r" * 27}},
        "uuid": _id(number),
        "target": [{"id": "AT.1", "type": "access_token", "displayName": "Access Token"}] * 3,
    }


def _cloudevents(number: int) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "type": "com.example.idp.token.issued",
        "source": "https://idp.example.com/realms/acme",
        "id": _id(number),
        "time": _iso(number),
        "subject": _agent(number),
        "organizationid": _tenant(number),
        "data": {"grant_type": "client_credentials", "scope": "read"},
    }


def _pairs(number: int) -> str:
    pairs = {
        "type": "CLIENT_LOGIN",
        "realmId": _tenant(number),
        "realmName": "acme",
        "clientId": _agent(number),
        "userId": _agent(number + 1),
        "ipAddress": "192.0.2.1",
        "token_id": f"trrtcc:{_id(number)}",
        "grant_type": "client_credentials",
        "scope": "email profile",
        "client_auth_method": "client-secret",
        "username": "service-account-invoice-agent",
    }
    return ", ".join(f'{name}="{value}"' for name, value in pairs.items())


def _keycloak_text(number: int) -> str:
    at = _iso(number).replace("T", " ").replace(".", ",")[:-1]
    return f"{at} DEBUG [org.keycloak.events] (executor-thread-1) {_pairs(number)}"


def _keycloak_json(number: int) -> dict[str, Any]:
    return {
        "timestamp": _iso(number).replace("Z", "798073+00:00"),
        "sequence": number,
        "loggerName": "org.keycloak.events",
        "level": "DEBUG",
        "message": _pairs(number),
        "threadName": "executor-thread-7",
        "mdc": {},
    }


def _cognito(number: int) -> dict[str, Any]:
    return {
        "detail": {
            "eventVersion": "1.08",
            "userIdentity": {"accountId": "123456789012"},
            "eventTime": _iso(number),
            "eventSource": "cognito-idp.amazonaws.com",
            "eventName": "Token_POST",
            "awsRegion": "us-west-2",
            "additionalEventData": {
                "responseParameters": {"status": 200.0},
                "requestParameters": {"client_id": [_agent(number)], "scope": ["read"]},
                "userPoolId": _tenant(number),
            },
            "eventID": _id(number),
        }
    }


def _node_oidc_provider(number: int) -> dict[str, Any]:
    return {
        "event": "grant.success",
        "at": _iso(number),
        "clientId": _agent(number),
        "organizationId": _tenant(number),
        "jti": _id(number),
    }


def _duende(number: int) -> dict[str, Any]:
    return {
        "ClientId": _agent(number),
        "Endpoint": "Token",
        "Scopes": "api",
        "GrantType": "client_credentials",
        "Tokens": [{"TokenType": "access_token", "TokenValue": "****a1b2"}],
        "Category": "Token",
        "EventType": "Success",
        "Id": 2000,
        "ActivityId": f"0HN:{number}",
        "TimeStamp": _iso(number),
        "Tenant": _tenant(number),
    }


def _zitadel(number: int) -> dict[str, Any]:
    return {
        "aggregate": {"id": f"33649480993{number % AGENTS:07}", "resourceOwner": _tenant(number)},
        "sequence": str(number),
        "creationDate": _iso(number),
        "type": {"type": "user.token.v2.added", "localized": {"key": "EventTypes.user.token"}},
    }


def _authentik(number: int) -> dict[str, Any]:
    return {
        "pk": _id(number),
        "user": {"pk": 1, "email": "", "username": _agent(number)},
        "action": "login",
        "app": "authentik.events.signals",
        "context": {
            "auth_method": "oauth_client_secret",
            "http_request": {"path": "/application/o/token/", "method": "POST"},
        },
        "created": _iso(number),
        "brand": {"pk": _tenant(number)},
    }


def _hydra(number: int) -> dict[str, Any]:
    attributes = {"OAuth2ClientID": _agent(number), "ProjectID": _tenant(number)}
    event = {
        "timeUnixNano": str(int(_at(number).timestamp() * 10) * 10**8),
        "name": "OAuth2AccessTokenIssued",
        "attributes": [
            {"key": name, "value": {"stringValue": value}} for name, value in attributes.items()
        ],
    }
    span = {"traceId": f"{number:032x}", "spanId": f"{number:016x}", "events": [event]}
    return {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}


# By format, and the kind of file if a format has several.
WRITERS: dict[str, Callable[[int], dict[str, Any] | str]] = {
    "auth0": _auth0,
    "authentik": _authentik,
    "cloudevents": _cloudevents,
    "cognito": _cognito,
    "duende": _duende,
    "entra": _entra,
    "hydra": _hydra,
    "keycloak": _keycloak_json,
    "keycloak text": _keycloak_text,
    "node-oidc-provider": _node_oidc_provider,
    "okta": _okta,
    "zitadel": _zitadel,
}


def from_logs(bench: Bench) -> Iterator[Figure]:
    """I3: flask events import of 200,000 records of each provider, in turns with our own."""
    count = bench.scaled(RECORDS)
    own = bench.folder / NATIVE
    _write(own, _native, count)
    for kind, write in WRITERS.items():
        log = bench.folder / "log"
        _write(log, write, count)
        done = _imported(bench, kind, log, count)
        native = _imported(bench, NATIVE, own, count)
        work = f"flask events import, {count:,} records of {kind}"
        rival = Rival("the service's own events", seconds([native.seconds]))
        yield faster("I3", work, seconds([done.seconds]), rival, 0.5)
        yield below("I3", f"{work}: memory", Samples((done.peak,), "MB"), 150)


def _imported(bench: Bench, kind: str, path: Path, count: int) -> Ended:
    name = bench.cluster.create()
    organization = () if kind == NATIVE else ("--organization", "org")
    options = ("--format", kind.split(maxsplit=1)[0], "--zone", "UTC", *organization)
    done = flask(bench.cluster.url(name), "events", "import", str(path), *options)
    with bench.cluster.connect(name) as connection:
        stored = connection.execute("SELECT count(*) FROM issuance_events").fetchone()
    if stored != (count,):
        raise BenchmarkError(f"{kind}: not every event was stored")
    return done


def _write(path: Path, write: Callable[[int], dict[str, Any] | str], count: int) -> None:
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            record = write(number)
            file.write(record if isinstance(record, str) else json.dumps(record))
            file.write("\n")
