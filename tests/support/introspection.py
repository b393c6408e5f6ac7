"""An identity provider on loopback that answers what tokens are, or fails."""

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, unquote_plus

from tests.support.jwks_server import Exchange, Listener

PATH = "/introspect"
CLIENT, SECRET = "analytics api", "a+b%c:d"


class Introspection(Exchange):
    """One request about a token."""

    def do_POST(self) -> None:  # noqa: N802 - the name of the base class's
        provider: Provider = self.server.provider  # type: ignore[assignment]
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        pair = base64.b64decode(self.headers["Authorization"].removeprefix("Basic ")).decode()
        name, _, secret = pair.partition(":")
        with provider.counting:
            provider.asked.append(form["token"][0])
            provider.credentials.add((unquote_plus(name), unquote_plus(secret)))
        provider.answer(self)

    def token(self) -> str:
        return self.server.provider.asked[-1]  # type: ignore[attr-defined, no-any-return]


class Provider:
    """Answers by ``answers`` until ``answer`` is something else; knows which tokens were asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.asked: list[str] = []
        self.credentials: set[tuple[str, str]] = set()
        self.seconds = 0.0
        self.answer: Callable[[Any], None] = self.tell
        self.counting, self.closing = threading.Lock(), threading.Event()
        self._listener = Listener(("127.0.0.1", 0), Introspection)
        self._listener.provider = self  # type: ignore[assignment]
        threading.Thread(target=self._listener.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def variables(self) -> dict[str, str]:
        """The variables of a service that asks here."""
        return {
            "INTROSPECTION_URL": f"http://127.0.0.1:{self._listener.server_port}{PATH}",
            "INTROSPECTION_CLIENT_ID": CLIENT,
            "INTROSPECTION_CLIENT_SECRET": SECRET,
        }

    def knows(self, token: str, **claims: Any) -> str:
        """Answer that a token is active, with these claims; ``...`` leaves one out."""
        usual = {
            "active": True,
            "client_id": "reporter",
            "exp": int(time.time()) + 600,
            "organization_id": "org-a",
        } | claims
        self.answers[token] = {name: value for name, value in usual.items() if value != ...}
        return token

    def tell(self, exchange: Any) -> None:
        found = self.answers.get(exchange.token(), {"active": False})
        time.sleep(self.seconds)
        exchange.reply(json.dumps(found).encode())

    def close(self) -> None:
        self.closing.set()
        self._listener.shutdown()
        self._listener.server_close()


@contextmanager
def introspecting() -> Iterator[Provider]:
    provider = Provider()
    try:
        yield provider
    finally:
        provider.close()
