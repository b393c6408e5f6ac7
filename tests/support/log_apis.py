"""A provider's log API on loopback: it pages as the real one, and has their troubles."""

import json
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

AT = datetime(2026, 5, 1, tzinfo=UTC)
SECRET = "only-the-provider-knows-it"
# In place of a status: the connection is closed, or one byte is sent after the other.
CLOSED, SLOW = 0, 1
# A response: its status, its headers, and its body as JSON or as bytes.
Response = tuple[int, dict[str, str], Any]


def text_of(instant: datetime) -> str:
    return f"{instant:%Y-%m-%dT%H:%M:%S}.{instant.microsecond // 1000:03}Z"


def record(provider: str, name: str, at: datetime) -> dict[str, Any]:
    """A record of an issued token."""
    if provider == "auth0":
        return {
            "_id": name, "log_id": name, "date": text_of(at), "type": "seccft",
            "client_id": "agent-1", "tenant_name": "org-a",
        }  # fmt: skip
    if provider == "okta":
        return {
            "uuid": name, "published": text_of(at), "actor": {"id": "agent-1"},
            "eventType": "app.oauth2.as.token.grant.access_token",
            "outcome": {"result": "SUCCESS"},
        }  # fmt: skip
    if provider == "keycloak":
        return {
            "time": round(at.timestamp() * 1000), "type": "CLIENT_LOGIN", "realmId": "org-a",
            "clientId": "agent-1", "details": {"token_id": name},
        }  # fmt: skip
    if provider == "zitadel":
        return {
            "aggregate": {"id": name, "resourceOwner": "org-a"}, "sequence": "1",
            "creationDate": text_of(at), "type": {"type": "user.token.v2.added"},
        }  # fmt: skip
    return {
        "id": name, "createdDateTime": text_of(at), "appId": "agent-1", "tenantId": "org-a",
        "signInEventTypes": ["servicePrincipal"], "status": {"errorCode": 0},
    }  # fmt: skip


def event_id(provider: str, name: str) -> str:
    """The id of the event that such a record is."""
    return f"{name} 1" if provider == "zitadel" else name


@dataclass
class FakeProvider:
    """The log of one provider, in the order of arrival.

    Attributes:
        page: the most records of a page, whatever is asked for.
        trouble: how likely a request fails in some way.
        script: responses for the next requests to the log; ``None`` lets one through.
        token_uses: how many requests a token lasts.
        requests: the requests to the log, as method, path and query.
        tokens: how many tokens were given.
    """

    provider: str
    page: int = 7
    trouble: float = 0
    token_uses: int = 10**9
    records: list[tuple[datetime, dict[str, Any]]] = field(default_factory=list)
    script: list[Callable[["FakeProvider"], Response | None]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    tokens: int = 0
    dice: random.Random = field(default_factory=lambda: random.Random(5))
    base: str = ""

    def __post_init__(self) -> None:
        self._uses: dict[str, int] = {}
        self._asked: tuple[dict[str, list[str]], bytes] = {}, b""
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"{self.base}/realms/acme" if self.provider == "keycloak" else self.base

    def add(self, count: int, *, late: timedelta = timedelta(0)) -> list[str]:
        """Add records, a second apart; ``late`` ones have a time before the newest."""
        with self._lock:
            names = []
            for _ in range(count):
                number = len(self.records)
                at = AT + timedelta(seconds=number) - late
                name = f"{number:020}"
                self.records.append((at, record(self.provider, name, at)))
                names.append(name)
            return names

    def shuffle(self) -> None:
        """Give the records another order of their times.

        Auth0's records arrive out of order by less than a page: its first page is in the order of
        the times, and the others are in the order of arrival.
        """
        reach = self.page / 2 if self.provider == "auth0" else len(self.records)
        with self._lock:
            count = len(self.records)
            order = sorted(range(count), key=lambda number: number + self.dice.uniform(0, reach))
            times = {number: AT + timedelta(seconds=second) for second, number in enumerate(order)}
            self.records = [
                (times[number], record(self.provider, f"{number:020}", times[number]))
                for number in range(count)
            ]

    def ids(self) -> list[str]:
        return sorted(event_id(self.provider, f"{n:020}") for n in range(len(self.records)))

    def answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Response:
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
        with self._lock:
            if path.endswith("/token"):
                return self._token(body)
            self.requests.append(f"{method} {target}")
            self.headers.append(headers)
            self._asked = query, body
            if self.script and (scripted := self.script.pop(0)(self)) is not None:
                return scripted
            if not self._is_authorized(headers.get("authorization", "")):
                return 401, {}, {"error": "the token is unknown or has expired"}
            if self.dice.random() < self.trouble:
                return self._trouble()
            return self.normal()

    def normal(self) -> Response:
        """The response to the last request, without trouble."""
        return self._PAGES[self.provider](self, *self._asked)

    def _token(self, body: bytes) -> Response:
        form = parse_qs(body.decode())
        if form.get("client_secret") != [SECRET] or form["grant_type"] != ["client_credentials"]:
            return 401, {}, {"error": "invalid_client"}
        self.tokens += 1
        self._uses[f"Bearer token-{self.tokens}"] = self.token_uses
        return 200, {}, {"access_token": f"token-{self.tokens}", "expires_in": 3600}

    def _is_authorized(self, value: str) -> bool:
        if value == f"SSWS {SECRET}":
            return True
        self._uses[value] = self._uses.get(value, 0) - 1
        return self._uses[value] >= 0

    def _trouble(self) -> Response:
        return self.dice.choice(
            [
                (429, {"Retry-After": "0"}, {"error": "too many"}),
                (429, {"X-RateLimit-Reset": str(int(time.time()))}, {}),
                (500, {}, b"<html>oops</html>"),
                (503, {}, {}),
                (200, {}, b'[{"cut": '),
                (CLOSED, {}, b""),
            ]
        )

    def _auth0(self, query: dict[str, list[str]], _body: bytes) -> Response:
        begin = 0
        if "from" in query:
            names = [one["log_id"] for _, one in self.records]
            begin = names.index(query["from"][0]) + 1
        # A search is in the order of dates, and a checkpoint in that of arrival.
        fresh = self.records[begin:]
        if "from" not in query:
            fresh = sorted(fresh, key=lambda one: one[0])
        found = [one for _, one in fresh[: min(self.page, 100)]]
        last = found[-1]["log_id"] if found else query.get("from", ["x"])[0]
        link = f'<{self.base}/api/v2/logs?from={last}&take=100>; rel="next"'
        return 200, {"Link": link} if "from" in query else {}, found

    def _okta(self, query: dict[str, list[str]], _body: bytes) -> Response:
        begin = int(query["after"][0]) if "after" in query else 0
        since = query.get("since", ["1970"])[0]
        fresh = [
            one for at, one in self.records[begin:] if "after" in query or text_of(at) >= since
        ]
        found = fresh[: min(self.page, 1000)]
        end = len(self.records) - len(fresh) + len(found)
        links = f'<{self.base}/api/v1/logs?limit=1000>; rel="self"'
        links += f', <{self.base}/api/v1/logs?after={end}&limit=1000>; rel="next"'
        return 200, {"Link": links, "X-Rate-Limit-Remaining": "5"}, found

    def _keycloak(self, query: dict[str, list[str]], _body: bytes) -> Response:
        day = query.get("dateFrom", ["1970-01-01"])[0]
        newest_first = sorted(self.records, key=lambda one: one[0], reverse=True)
        kept = [one for at, one in newest_first if f"{at:%Y-%m-%d}" >= day]
        first, most = int(query["first"][0]), min(self.page, int(query["max"][0]))
        return 200, {}, kept[first : first + most]

    def _zitadel(self, _query: dict[str, list[str]], body: bytes) -> Response:
        search = json.loads(body)
        assert search["asc"] is True
        after = search.get("from", "")
        oldest_first = sorted(self.records, key=lambda one: one[0])
        kept = [one for at, one in oldest_first if f"{at:%Y-%m-%dT%H:%M:%S.%f}Z" > after]
        return 200, {}, {"events": kept[: min(self.page, search["limit"])]}

    def _entra(self, query: dict[str, list[str]], _body: bytes) -> Response:
        since = re.search(r"createdDateTime ge (\S+)", query["$filter"][0])
        newest_first = sorted(self.records, key=lambda one: one[0], reverse=True)
        kept = [one for at, one in newest_first if not since or text_of(at) >= since[1][:23] + "Z"]
        skip = int(query.get("$skiptoken", ["0"])[0])
        page = {"value": kept[skip : skip + self.page]}
        if skip + self.page < len(kept):
            target = self.requests[-1].split(" ", 1)[1]
            target = re.sub(r"&\$skiptoken=\d+", "", target)
            page["@odata.nextLink"] = f"{self.base}{target}&$skiptoken={skip + self.page}"
        return 200, {}, page

    _PAGES = {  # noqa: RUF012 - never changed
        "auth0": _auth0,
        "okta": _okta,
        "keycloak": _keycloak,
        "zitadel": _zitadel,
        "entra-graph": _entra,
    }


@contextmanager
def serving(provider: FakeProvider) -> Iterator[FakeProvider]:
    """Serve a provider's API on loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"

        def do_GET(self) -> None:
            size = int(self.headers.get("Content-Length", 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, extra, body = provider.answer(
                self.command, self.path, headers, self.rfile.read(size)
            )
            if status == CLOSED:
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if status == SLOW:
                self.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: 1000\r\n\r\n")
                for _ in range(1000):  # until the client has had enough
                    self.wfile.write(b" ")
                    time.sleep(0.05)
                return
            content = body if isinstance(body, bytes) else json.dumps(body, indent=1).encode()
            self.send_response(status)
            for name, value in extra.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET  # noqa: N815 - the library's name

        def log_message(self, *_arguments: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_arguments: object) -> None:
            pass  # a client that was killed

    with Server(("127.0.0.1", 0), Handler) as server:
        provider.base = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield provider
        finally:
            server.shutdown()
            thread.join()
