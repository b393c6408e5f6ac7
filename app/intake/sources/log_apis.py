"""The log APIs of providers: how each one pages, and where its records have their time.

A *token* stands for a request: a path with a query, or the body of a search. Each page leads to the
token of the next one.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import msgspec

from app.dates import EPOCH, parse_instant
from app.intake.events import prepared
from app.intake.sources.credentials import TokenEndpoint
from app.provider_http import NOT_JSON, Answer, FetchError

MICROSECOND = timedelta(microseconds=1)
_LINK = re.compile(r'<([^>]*)>\s*((?:;\s*[a-zA-Z*]+\s*=\s*(?:"[^"]*"|[^",;\s]*)\s*)*)')
_REL_NEXT = re.compile(r'rel\s*=\s*"?next"?', re.IGNORECASE)


class ForeignLinkError(Exception):
    """A link to the next page leads to another host, which must not get the credentials."""


@dataclass(frozen=True)
class Page:
    """A page of a log.

    Attributes:
        records: the JSON text of each record.
        times: the instants of the records that have a readable one.
        next: the token of the next page; ``None`` at the end.
    """

    records: list[bytes]
    times: list[datetime]
    next: str | None


class LogApi(ABC):
    """A provider's log API.

    Attributes:
        name: the word of the command.
        format: the format of its records.
        resumes: whether the token of a page can be used again much later, and pages are in the
            order in which records arrived. A pull then begins at the token of an earlier page, and
            otherwise at a time.
        overlap: how much of the log each pull reads again, for records that arrive late.
        keeps: what the provider may refuse to look further back than; ``None`` if it does not.
    """

    name: ClassVar[str]
    format: ClassVar[str]
    resumes: ClassVar[bool]
    overlap: ClassVar[timedelta] = timedelta(minutes=5)
    keeps: ClassVar[timedelta | None] = None
    end_of_url: ClassVar[str]

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.origin = f"{parts.scheme}://{parts.netloc}"
        self.base = parts.path.rstrip("/").removesuffix(self.end_of_url).rstrip("/")

    @abstractmethod
    def endpoint(self) -> TokenEndpoint:
        """Where a client gets a token."""

    @abstractmethod
    def first(self, since: datetime | None) -> str:
        """The token of the first page from an instant, or from the begin of the log."""

    def request(self, token: str) -> tuple[str, bytes | None]:
        """The URL of a page, and the body of the request if it is a ``POST``."""
        return f"{self.origin}{token}", None

    @abstractmethod
    def page(self, token: str, answer: Answer) -> Page:
        """The page that a response is.

        Raises:
            FetchError: the response is not such a page.
            ForeignLinkError: the next page is at another host.
        """

    def local(self, link: str) -> str:
        """The path and query of a link, which must lead to the host of the API."""
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            try:
                same = f"{parts.scheme}://{parts.netloc}".lower() == self.origin.lower()
            except ValueError:
                same = False
            if not same:
                raise ForeignLinkError
        if not parts.path.startswith("/") or not link.isascii() or not link.isprintable():
            raise ForeignLinkError
        return f"{parts.path}?{parts.query}" if parts.query else parts.path


@prepared
class _Auth0Record(msgspec.Struct):
    time: Any = msgspec.field(name="date", default=None)
    log_id: Any = None
    id: Any = msgspec.field(name="_id", default=None)


def _order(log_id: str) -> tuple[int, str]:
    return len(log_id), log_id


class Auth0(LogApi):
    """Auth0: ``GET /api/v2/logs``, by checkpoint. The log id orders the records by arrival."""

    name, format, resumes = "auth0", "auth0", True
    end_of_url = "/api/v2/logs"
    take = 100

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.base = self.base.removesuffix("/api/v2")

    def endpoint(self) -> TokenEndpoint:
        root = f"{self.origin}{self.base}"
        return TokenEndpoint(f"{root}/oauth/token", audience=f"{root}/api/v2/")

    def first(self, since: datetime | None) -> str:
        # There is no checkpoint yet, so the first page is a search, oldest first.
        query = {"sort": "date:1", "per_page": self.take, "page": 0, "take": self.take}
        if since is not None:
            query["q"] = f"date:[{_rfc3339(since)} TO *]"
        return self._path(query)

    def page(self, token: str, answer: Answer) -> Page:
        texts = _decode(answer, list[msgspec.Raw])
        records = [_decoded(text, _Auth0Record) for text in texts]
        ids = [one.log_id or one.id for one in records if one is not None]
        known = [one for one in ids if isinstance(one, str)]
        is_search = "from=" not in token
        # A search is in the order of dates. Records with later dates may have arrived earlier.
        last = (min(known, key=_order) if is_search else known[-1]) if known else None
        link = None if is_search else _next_link(answer.headers)
        after: str | None = None
        if texts and link is not None:
            after = self.local(link)
        elif texts and last is not None:
            after = self._path({"from": last, "take": self.take})
        return Page([bytes(text) for text in texts], _times(records), after)

    def _path(self, query: Mapping[str, object]) -> str:
        return f"{self.base}/api/v2/logs?{urlencode(query)}"


@prepared
class _OktaRecord(msgspec.Struct):
    time: Any = msgspec.field(name="published", default=None)


class Okta(LogApi):
    """Okta: ``GET /api/v1/logs``. Without ``until`` the pages follow the order of arrival."""

    name, format, resumes = "okta", "okta", True
    end_of_url = "/api/v1/logs"
    keeps = timedelta(days=89)  # Okta keeps 90 days, and may refuse an earlier `since`

    def endpoint(self) -> TokenEndpoint:
        url = f"{self.origin}{self.base}/oauth2/v1/token"
        return TokenEndpoint(url, scope="okta.logs.read", fixed="SSWS")

    def first(self, since: datetime | None) -> str:
        query = {
            "since": _rfc3339(since or EPOCH),
            "limit": 1000,
            "sortOrder": "ASCENDING",
            "filter": 'eventType sw "app.oauth2"',
        }
        return f"{self.base}/api/v1/logs?{urlencode(query)}"

    def page(self, token: str, answer: Answer) -> Page:
        texts = _decode(answer, list[msgspec.Raw])
        link = _next_link(answer.headers)
        after = self.local(link) if texts and link is not None else None
        records = [_decoded(text, _OktaRecord) for text in texts]
        return Page([bytes(text) for text in texts], _times(records), after)


@prepared
class _KeycloakRecord(msgspec.Struct):
    time: Any = None


class Keycloak(LogApi):
    """Keycloak: ``GET /admin/realms/{realm}/events``, newest first, by offset.

    New events move the others to higher offsets, so pages repeat records and skip none.
    """

    name, format, resumes = "keycloak", "keycloak", False
    end_of_url = "/events"
    max = 1000
    # The order of records of one instant is not fixed, so pages overlap.
    repeated = 10

    def __init__(self, url: str) -> None:
        super().__init__(url)
        root, slash, realm = self.base.rpartition("/realms/")
        if not slash or not realm or "/" in realm:
            raise ValueError("must end with /realms/ and the name of the realm")
        self.base, self.realm = root.removesuffix("/admin"), realm

    def endpoint(self) -> TokenEndpoint:
        root = f"{self.origin}{self.base}/realms/{self.realm}"
        return TokenEndpoint(f"{root}/protocol/openid-connect/token")

    def first(self, since: datetime | None) -> str:
        return self._path(0, None if since is None else _keycloak_day(since))

    def page(self, token: str, answer: Answer) -> Page:
        texts = _decode(answer, list[msgspec.Raw])
        query = parse_qs(urlsplit(token).query)
        after: str | None = None
        if texts:
            repeated = self.repeated if len(texts) >= self.max else 0
            first = int(query["first"][0]) + len(texts) - repeated
            after = self._path(first, query.get("dateFrom", [None])[0])
        records = [_decoded(text, _KeycloakRecord) for text in texts]
        return Page([bytes(text) for text in texts], _times(records), after)

    def _path(self, first: int, day: str | None) -> str:
        query: dict[str, object] = {"first": first, "max": self.max}
        if day is not None:
            query["dateFrom"] = day
        return f"{self.base}/admin/realms/{self.realm}/events?{urlencode(query)}"


def _keycloak_day(since: datetime) -> str:
    """A date, which every version understands. Its begin is in the time zone of the server."""
    return (
        f"{since - timedelta(days=1):%Y-%m-%d}"
        if since > EPOCH + timedelta(days=1)
        else ("1970-01-01")
    )


@prepared
class _ZitadelRecord(msgspec.Struct):
    time: Any = msgspec.field(name="creationDate", default=None)


@prepared
class _ZitadelPage(msgspec.Struct):
    events: list[msgspec.Raw] = []


@prepared
class _ZitadelSearch(msgspec.Struct, rename="camel", omit_defaults=True):
    limit: int
    asc: bool
    event_types: list[str]
    # `from` is since 2.50; earlier versions know `creationDate` alone.
    after: str | None = msgspec.field(name="from", default=None)
    creation_date: str | None = None


class Zitadel(LogApi):
    """Zitadel: ``POST /admin/v1/events/_search``, oldest first, after an instant."""

    name, format, resumes = "zitadel", "zitadel", True
    end_of_url = "/admin/v1/events/_search"
    limit = 1000

    def endpoint(self) -> TokenEndpoint:
        scope = "openid urn:zitadel:iam:org:project:id:zitadel:aud"
        return TokenEndpoint(f"{self.origin}{self.base}/oauth/v2/token", scope=scope)

    def first(self, since: datetime | None) -> str:
        return self._search(None if since is None else since - MICROSECOND)

    def request(self, token: str) -> tuple[str, bytes | None]:
        return f"{self.origin}{self.base}/admin/v1/events/_search", token.encode()

    def page(self, token: str, answer: Answer) -> Page:
        texts = _decode(answer, _ZitadelPage).events
        times = _times([_decoded(text, _ZitadelRecord) for text in texts])
        after: str | None = None
        if times:
            # The search begins after its instant. Records of the last one may be on the next page.
            after = self._search(max(times) - MICROSECOND)
            if after == token and len(texts) >= self.limit:
                after = self._search(max(times))  # a whole page of one instant
            elif after == token:
                after = None
        return Page([bytes(text) for text in texts], times, after)

    def _search(self, after: datetime | None) -> str:
        instant = None if after is None else _rfc3339(after)
        types = ["user.token.v2.added", "user.token.added"]
        search = _ZitadelSearch(self.limit, True, types, instant, instant)
        return msgspec.json.encode(search).decode()


@prepared
class _EntraRecord(msgspec.Struct):
    time: Any = msgspec.field(name="createdDateTime", default=None)


@prepared
class _EntraPage(msgspec.Struct):
    value: list[msgspec.Raw]
    next: str | None = msgspec.field(name="@odata.nextLink", default=None)


class EntraGraph(LogApi):
    """Microsoft Graph: ``GET /beta/auditLogs/signIns``, newest first. Records arrive late."""

    name, format, resumes = "entra-graph", "entra", False
    end_of_url = "/auditLogs/signIns"
    overlap = timedelta(hours=2)

    def endpoint(self) -> TokenEndpoint:
        # The address of the token endpoint has the directory's id, which the secret file knows.
        return TokenEndpoint(None, scope=f"{self.origin}/.default")

    def first(self, since: datetime | None) -> str:
        # Sign-ins of service principals are in the beta version only.
        base = self.base or "/beta"
        kinds = ("servicePrincipal", "managedIdentity")
        filters = [" or ".join(f"signInEventTypes/any(t: t eq '{kind}')" for kind in kinds)]
        if since is not None:
            filters = [f"createdDateTime ge {_rfc3339(since)} and ({filters[0]})"]
        query = urlencode({"$filter": filters[0]}, quote_via=quote, safe="$")
        return f"{base}/auditLogs/signIns?{query}"

    def page(self, token: str, answer: Answer) -> Page:
        found = _decode(answer, _EntraPage)
        after = None if found.next is None else self.local(found.next)
        records = [_decoded(text, _EntraRecord) for text in found.value]
        return Page([bytes(text) for text in found.value], _times(records), after)


LOG_APIS: dict[str, type[LogApi]] = {
    api.name: api for api in (Auth0, Okta, Keycloak, Zitadel, EntraGraph)
}


def _decode(answer: Answer, kind: Any) -> Any:
    try:
        return msgspec.json.decode(answer.body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise FetchError(NOT_JSON, "of a page of the log") from None


def _decoded(text: msgspec.Raw, kind: Any) -> Any:
    """A record's members for paging; ``None`` if it is no object, which its format refuses."""
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _times(records: list[Any]) -> list[datetime]:
    instants = (_instant(record.time) for record in records if record is not None)
    return [instant for instant in instants if instant is not None]


def _instant(value: Any) -> datetime | None:
    """An instant as text, or in milliseconds."""
    try:
        if isinstance(value, str):
            return parse_instant(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return EPOCH + timedelta(milliseconds=value)
    except (ValueError, OverflowError):
        pass
    return None


def _rfc3339(instant: datetime) -> str:
    text = instant.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
    return f"{text}Z"


def _next_link(headers: Mapping[str, str]) -> str | None:
    """The target of ``rel=next`` in the ``Link`` headers (RFC 8288)."""
    get_all = getattr(headers, "get_all", None)
    lines = get_all("Link") or [] if get_all else [headers.get("Link", "")]
    for target, parameters in _LINK.findall(",".join(lines)):
        if _REL_NEXT.search(parameters):
            return str(target)
    return None
