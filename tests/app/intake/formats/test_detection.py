"""Detection: the format of a file is recognised by its first records."""

import json
from typing import Any

import pytest

from app.intake.formats import FORMATS
from app.intake.formats.base import Options
from app.intake.formats.detection import tell
from tests.app.intake.formats import (
    test_auth0,
    test_authentik,
    test_cloudevents,
    test_cognito,
    test_duende,
    test_entra,
    test_hydra,
    test_keycloak,
    test_node_oidc_provider,
    test_okta,
    test_zitadel,
)
from tests.app.intake.formats.reading import lines
from tests.support.settings import EVENT_BYTES

EVENT = {"id": "e1", "organizationId": "o", "agentId": "a", "issuedAt": "2026-04-01T09:00:00Z"}
K = test_keycloak
TEXTS = {
    "native": [
        lines(EVENT),
        json.dumps([EVENT, EVENT], indent=1),
        "id,organizationId,agentId,issuedAt\ne1,o,a,2026-04-01T09:00:00Z\n",
        "issuedAt;agentId;id;organizationId\n2026-04-01T09:00:00Z;a;e1;o\n",
    ],
    "keycloak": [
        lines(K.rest(1)),
        K.table(K.rest(1)),
        K.console(K.message(1)),
        K.quarkus(K.message(1)),
        K.unquoted(1, "LOGIN", "x"),
        "started\n" * 300 + K.console(K.message(1)),
        lines(K.rest(1, "CLIENT_LOGIN_ERROR")),
    ],
    "auth0": [lines(test_auth0.stream(1)), json.dumps([test_auth0.row(1)], indent=2)],
    "okta": [lines(test_okta.record(1)), lines({"detail": test_okta.record(1)})],
    "cognito": [json.dumps({"Records": [test_cognito.record(1)] * 2000})],
    "entra": [
        lines(test_entra.blob(1, "SignInLogs")),
        json.dumps({"value": [test_entra.graph(1)]}),
    ],
    "cloudevents": [lines(test_cloudevents.record(1)), json.dumps([test_cloudevents.record(1)])],
    "hydra": [lines(test_hydra.export([test_hydra.event()]))],
    "zitadel": [json.dumps({"events": [test_zitadel.record("oidc_session.added")]}, indent=2)],
    "authentik": [json.dumps({"results": [test_authentik.record(1)]})],
    "duende": [lines(test_duende.record(1, "code")), json.dumps(test_duende.record(1), indent=2)],
    "node-oidc-provider": [lines(test_node_oidc_provider.record())],
}


def told(text: str, *, is_pipe: bool = False) -> list[str]:
    given = [line.encode() for line in text.splitlines(keepends=True)]
    names, again = tell(FORMATS, iter(given), Options(None, EVENT_BYTES), is_pipe=is_pipe)
    assert list(again) == given
    return names


@pytest.mark.parametrize(
    ("name", "text"), [(name, text) for name, texts in TEXTS.items() for text in texts]
)
def test_each_format_is_told_from_its_records(name: str, text: str) -> None:
    """A record of any outcome tells its format: a failure, too. No line is lost."""
    assert told(text) == [name]
    assert told(text, is_pipe=True) == [name]


def test_every_format_is_told() -> None:
    assert TEXTS.keys() == FORMATS.keys() - {"ndjson", "csv"}


@pytest.mark.parametrize(
    "text", ["", "\n\n", "nonsense\n" * 3, "<a></a>", "{}\n", "[]", '{"type":"x"}\n']
)
def test_unknown_records_tell_nothing(text: str) -> None:
    assert told(text) == told(text, is_pipe=True) == []


def test_records_of_two_formats_are_a_doubt() -> None:
    both = lines(test_okta.record(1), test_auth0.stream(1))
    assert told(both) == ["auth0", "okta"]


def test_a_pipe_is_not_waited_for() -> None:
    """The first known record decides, because the next may come much later."""

    def arriving() -> Any:
        yield lines(test_okta.record(1)).encode()
        raise AssertionError("a second line was asked for")

    names, _ = tell(FORMATS, arriving(), Options(None, EVENT_BYTES), is_pipe=True)
    assert names == ["okta"]
