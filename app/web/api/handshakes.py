"""Handshakes: show the sender of webhooks that this service expects its events.

Okta sends a challenge, and Azure Event Grid the question of the CloudEvents webhook specification.
Neither needs a token: the answer only repeats the question. Each later event does need one.
"""

import re

import msgspec
from flask import Flask, Response, request

from app.web import request_log

EVENTS = "/api/v1/events"
OKTA = "X-Okta-Verification-Challenge"
ASKED, ALLOWED = "WebHook-Request-Origin", "WebHook-Allowed-Origin"
# The name of a host, perhaps with a wildcard or a port.
_ORIGIN = re.compile(r"[A-Za-z0-9.*:_-]{1,255}")


def init_app(app: Flask) -> None:
    """Answer handshakes on the route of events."""
    app.before_request(_answer)


def _answer() -> Response | None:
    if request.path != EVENTS:
        return None
    challenge, origin = request.headers.get(OKTA), request.headers.get(ASKED, "")
    if request.method == "GET" and challenge is not None:
        request_log.note(handshake="okta")
        body = msgspec.json.encode({"verification": challenge})
        return _uncached(Response(body, mimetype="application/json"))
    if request.method == "OPTIONS" and _ORIGIN.fullmatch(origin):
        request_log.note(handshake="cloudevents")
        headers = {"Allow": "POST", ALLOWED: origin, "WebHook-Allowed-Rate": "*"}
        return _uncached(Response(status=200, headers=headers))
    return None


def _uncached(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    return response
