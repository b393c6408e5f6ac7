"""Pulling: every record of a provider's log once, whatever happens to its pages."""

import threading
from contextlib import nullcontext
from datetime import timedelta
from email.utils import format_datetime

import msgspec
import pytest
import sqlalchemy as sa

from app.dates import utc_now
from app.intake.sources import pages, pull
from app.intake.sources.building import build
from app.intake.sources.entries import Pull, prepare
from app.intake.sources.log_apis import LOG_APIS
from app.intake.sources.pages import PullError
from app.intake.sources.pull import Cursor
from app.storage.tables import source_positions
from tests.app.intake.sources.conftest import stored_ids
from tests.support.log_apis import AT, CLOSED, SECRET, SLOW, FakeProvider, record, serving
from tests.support.settings import make_settings


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Waits are short, and the clock is that of the records."""
    monkeypatch.setattr(pages, "BACKOFF_SECONDS", (0.001, 0.01))
    monkeypatch.setattr(pages, "MIN_WAIT_SECONDS", 0.001)


class Log:
    """A provider with a log, and pulls of it."""

    def __init__(self, fake, database, folder):
        self.fake = fake
        self.database = database
        self.secret = folder / "secret.toml"
        self.secret.write_text(f'client_id = "us"\nclient_secret = "{SECRET}"\n')
        if fake.provider == "okta":
            self.secret.write_text(SECRET + "\n")
        elif fake.provider == "entra-graph":
            with self.secret.open("a") as file:
                file.write(f'token_url = "{fake.base}/tenant/oauth2/v2.0/token"\n')
        self.waits = []
        self.now = AT + timedelta(days=30)
        self.start()

    def start(self, **options):
        """A new process."""
        entry = Pull(
            name="theirs",
            provider=self.fake.provider,
            url=self.fake.url,
            secret_file=self.secret,
            organization="org-a",
            **options,
        )
        settings = make_settings(self.database.engine.url.render_as_string(hide_password=False))
        prepared = prepare(entry, settings, None)
        self.source = build(self.database, settings, prepared, threading.Event(), lambda: self.now)
        self.source.every = 0
        self.source.pages.wait = self.waited

    def waited(self, seconds):
        self.waits.append(seconds)
        return False

    def pull(self):
        while self.source.turn():
            pass

    def ids(self):
        return stored_ids(self.database)

    def row(self):
        with self.database.reading() as connection:
            return connection.execute(sa.select(source_positions)).one()

    def cursor(self):
        return msgspec.json.decode(self.row().position, type=Cursor)


@pytest.fixture
def log_of(request, tmp_path):
    """Logs of providers, each with a server."""
    opened = []

    def log_of(provider, database, **options):
        context = serving(FakeProvider(provider, **options))
        fake = context.__enter__()
        opened.append(context)
        return Log(fake, database, tmp_path)

    yield log_of
    for context in opened:
        context.__exit__(None, None, None)


@pytest.fixture(params=LOG_APIS)
def each_log(request, log_of, sqlite):
    return log_of(request.param, sqlite)


# One whose pages follow the order of arrival, and one with the newest first. The others are slow.
QUICK = ("okta", "keycloak")


def providers(*names):
    """Cases for ``log``: one provider of each kind in ``make test``, the others are slow."""
    return [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in sorted(names)
    ]


@pytest.fixture(params=providers(*LOG_APIS))
def log(request, log_of, sqlite):
    return log_of(request.param, sqlite)


def test_a_log_is_pulled_page_by_page(each_log):
    """All pages at first, then what is new; the cursor is stored with the events."""
    log = each_log
    log.pull()
    assert log.ids() == []
    log.fake.add(50)
    log.pull()
    assert log.ids() == log.fake.ids()
    log.fake.add(20)
    log.start()
    log.pull()
    assert log.ids() == log.fake.ids()
    row = log.row()
    assert (row.accepted, row.place, row.error, row.refused) == (70, "", None, 0)
    assert row.newest_at == AT + timedelta(seconds=69)
    assert row.kind == log.fake.provider


def test_postgresql_keeps_the_cursor_too(log_of, database):
    log = log_of("okta", database)
    log.fake.add(30)
    log.pull()
    log.fake.add(5)
    log.start()
    log.pull()
    assert log.ids() == log.fake.ids()
    assert log.row().accepted == 35


@pytest.mark.slow
def test_a_later_pull_reads_little_more_than_the_overlap(log):
    """Its requests do not grow with the log."""
    log.fake.page = 100
    log.fake.add(3000)
    log.pull()
    assert log.ids() == log.fake.ids()
    log.start(overlap="60s")
    log.pull()
    log.fake.requests.clear()
    log.fake.add(10)
    log.pull()
    assert log.ids() == log.fake.ids()
    assert len(log.fake.requests) <= 5


def test_records_that_arrive_late_are_read(each_log):
    """A record that becomes visible later, with a time before the newest, is in the overlap."""
    log = each_log
    log.fake.add(40)
    log.pull()
    log.fake.add(5, late=timedelta(seconds=30))
    log.fake.add(5)
    log.pull()
    assert log.ids() == log.fake.ids()


def test_an_order_other_than_expected_loses_nothing(log):
    """The records of a page in any order, and pages in the other direction."""
    log.fake.add(60)
    log.fake.shuffle()
    log.pull()
    assert log.ids() == log.fake.ids()


@pytest.mark.parametrize("overlap", ["5m", "10s"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_lost_page_is_read_by_the_next_pull(log, number, overlap):
    """A page that comes empty once is not the end of what is read."""
    log.start(overlap=overlap)
    log.fake.add(60)
    empty = {"zitadel": {"events": []}, "entra-graph": {"value": []}}.get(log.fake.provider, [])
    log.fake.script = [lambda _: None] * number + [lambda _: (200, {}, empty)]
    log.pull()
    log.pull()
    log.pull()
    assert log.ids() == log.fake.ids()


@pytest.mark.parametrize(
    "trouble",
    [
        (429, {"Retry-After": "3"}, {}),
        (503, {"Retry-After": "in 30 s"}, {}),
        (500, {}, b"<html>"),
        (408, {}, {}),
        (CLOSED, {}, b""),
    ],
    ids=["429", "503", "500", "408", "closed"],
)
def test_a_failure_that_passes_is_tried_again(log, trouble):
    """The page is requested again after the wait that the provider asks for."""

    def fail(_fake):
        status, headers, body = trouble
        if status == 503:
            at = utc_now() + timedelta(seconds=30)
            headers = {"Retry-After": format_datetime(at, usegmt=True)}
        return status, headers, body

    log.fake.add(20)
    log.fake.script = [lambda _: None, fail, fail]
    log.pull()
    assert log.ids() == log.fake.ids()
    assert len(log.waits) == 2
    if trouble[0] == 429:
        assert log.waits == [3, 3]
    if trouble[0] == 503:
        assert all(25 < wait <= 30 for wait in log.waits)


def test_failures_in_a_row_end_the_pull(log):
    """The pages before are kept, and the next pull goes on."""
    log.fake.add(30)
    log.fake.script = [lambda _: None] * 2 + [lambda _: (500, {}, {})] * 5
    with pytest.raises(PullError, match="status 500") as raised:
        log.pull()
    assert raised.value.is_temporary
    assert 7 <= len(log.ids()) < 30
    log.pull()
    assert log.ids() == log.fake.ids()


def test_a_long_wait_is_kept_across_processes(log):
    """Until then no request is sent, by whichever process."""
    log.fake.add(20)
    log.fake.script = [lambda _: (429, {"Retry-After": "600"}, {})]
    with pytest.raises(PullError, match="600 s"):
        log.pull()
    sent = len(log.fake.requests)
    log.start()
    log.now += timedelta(seconds=300)
    with pytest.raises(PullError, match="300 s"):
        log.pull()
    assert len(log.fake.requests) == sent
    log.now += timedelta(seconds=301)
    log.pull()
    assert log.ids() == log.fake.ids()


def test_a_wait_without_reason_is_limited(log):
    """A provider that asks for years is asked again within the hour."""
    log.fake.script = [lambda _: (429, {"Retry-After": "99999999999999"}, {})]
    with pytest.raises(PullError) as raised:
        log.pull()
    assert raised.value.wait == 3600


def test_a_used_up_rate_limit_is_waited_for(log):
    """Before the next request, and without an error."""
    log.fake.add(20)

    def used_up(fake):
        status, headers, body = fake.normal()
        return status, headers | {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "7"}, body

    log.fake.script = [used_up]
    log.pull()
    assert log.waits == [7]
    assert log.ids() == log.fake.ids()


# Okta's token was created by hand, and does not expire.
@pytest.mark.parametrize("log", providers(*set(LOG_APIS) - {"okta"}), indirect=True)
def test_a_token_that_expires_is_renewed(log):
    """A token lasts three requests, and a pull takes more."""
    log.fake.token_uses = 3
    log.fake.add(60)
    log.pull()
    assert log.ids() == log.fake.ids()
    assert log.fake.tokens >= 3


def test_a_refused_secret_ends_the_pull_at_once(log, caplog):
    """It is tried once, and neither the error nor the log shows it."""
    log.secret.write_text('client_id = "us"\nclient_secret = "wrong-secret"\n')
    if log.fake.provider == "okta":
        log.secret.write_text("wrong-secret")
    elif log.fake.provider == "entra-graph":
        with log.secret.open("a") as file:
            file.write(f'token_url = "{log.fake.base}/token"\n')
    with pytest.raises(PullError, match="401") as raised:
        log.pull()
    assert not raised.value.is_temporary
    assert "wrong-secret" not in f"{raised.value!r}{caplog.text}"
    assert len(log.fake.requests) <= 2


def test_a_new_secret_is_read_without_a_restart(log_of, sqlite):
    log = log_of("okta", sqlite)
    log.fake.add(3)
    good = log.secret.read_text()
    log.secret.write_text("old")
    with pytest.raises(PullError):
        log.pull()
    log.secret.write_text(good)
    log.pull()
    assert log.ids() == log.fake.ids()


# The pages of the others have no links.
@pytest.mark.parametrize("log", providers("auth0", "okta", "entra-graph"), indirect=True)
def test_a_link_to_another_host_is_not_followed(log):
    """The credentials go to the host of the API only."""
    foreign = "http://169.254.169.254/latest/meta-data"
    page = {
        "auth0": [record("auth0", "1", AT)],
        "okta": [record("okta", "1", AT)],
        "entra-graph": {"value": [record("entra-graph", "1", AT)], "@odata.nextLink": foreign},
    }[log.fake.provider]
    log.fake.add(1)
    log.pull()
    for link in (foreign, "//evil.example/x", "http://127.0.0.1:1/x", "file:///etc/passwd", "x"):
        if isinstance(page, dict):
            page["@odata.nextLink"] = link
        headers = {"Link": f'<{link}>; rel="next"'}
        log.fake.script = [lambda _, h=headers: (200, h, page)] * 3
        with pytest.raises(PullError, match="another host"):
            log.pull()
        log.fake.script = []
        log.start()


def test_auth0_skips_no_record_that_arrived_late(log_of, sqlite):
    """The first page is in the order of dates, and the next ones in that of arrival."""
    log = log_of("auth0", sqlite, page=100)
    log.fake.add(104)
    log.fake.add(1, late=timedelta(seconds=5.5))  # the last of the first page
    log.fake.add(100)
    log.pull()
    assert log.ids() == log.fake.ids()


def test_another_log_under_the_same_name_is_refused(log_of, sqlite):
    """The position of one log would hide the older records of the other."""
    log = log_of("okta", sqlite)
    log.fake.add(3)
    log.pull()
    other = log_of("okta", sqlite)
    other.fake.add(3)
    with pytest.raises(PullError, match="of another log"):
        other.pull()
    assert other.fake.requests == []


@pytest.mark.parametrize(
    ("provider", "expected"),
    [
        ("entra-graph", pytest.raises(PullError, match="of another log")),
        ("keycloak", nullcontext()),
    ],
)
def test_a_directory_is_told_by_its_token_url(log_of, sqlite, provider, expected):
    """All customers of Microsoft share one API. Elsewhere the token's URL may change."""
    log = log_of(provider, sqlite)
    log.fake.add(3)
    log.pull()
    client = f'client_id = "us"\nclient_secret = "{SECRET}"\n'
    log.secret.write_text(f'{client}token_url = "{log.fake.base}/other/token"\n')
    log.start()
    with expected:
        log.pull()


def test_a_redirect_is_not_followed(log):
    log.fake.script = [lambda fake: (302, {"Location": f"{fake.base}/elsewhere"}, {})]
    with pytest.raises(PullError, match="status 302"):
        log.pull()
    assert len(log.fake.requests) == 1


def test_links_in_a_circle_end_the_pull(log_of, sqlite):
    """A page that leads to itself is noticed, and the next pull begins at the stored cursor."""
    for provider in ("okta", "entra-graph"):
        log = log_of(provider, sqlite)
        log.start()
        log.source.records.name = provider
        log.fake.add(10)
        page = [record("okta", "0", AT)]
        link = f"{log.fake.base}/api/v1/logs?after=1"
        body = page if provider == "okta" else {"value": [], "@odata.nextLink": link}
        answer = (200, {"Link": f'<{link}>; rel="next"'}, body)
        log.fake.script = [lambda _, a=answer: a] * 9
        with pytest.raises(PullError, match="circle"):
            log.source.turn()
        assert len(log.fake.requests) == 2


def test_pages_without_end_end_at_a_limit(log, monkeypatch):
    """The next pull goes on where this one has ended."""
    monkeypatch.setattr(pull, "PULL_PAGES", 3)
    log.fake.add(100)
    turns = 0
    while log.source.turn():
        turns += 1
        assert len(log.fake.requests) <= 3 * turns
        assert turns < 100
    assert turns >= 4
    assert log.ids() == log.fake.ids()


def test_a_response_that_is_too_large_ends_the_pull(log, monkeypatch):
    monkeypatch.setattr(pages, "RESPONSE_BYTES", 1000)
    log.fake.add(50)
    with pytest.raises(PullError, match="too large"):
        log.pull()


def test_a_server_that_sends_byte_by_byte_is_left(log_of, sqlite, monkeypatch):
    """A request has a limit of time as a whole, however its bytes come."""
    monkeypatch.setattr(pages, "REQUEST_SECONDS", 0.3)
    log = log_of("okta", sqlite)
    log.fake.add(5)
    log.fake.script = [lambda _: (SLOW, {}, b"")]
    log.pull()
    assert len(log.waits) == 1
    assert log.ids() == log.fake.ids()


def test_what_is_no_page_ends_the_pull(log):
    """HTML, other JSON and a cut response leave the cursor, and the next pull goes on."""
    log.fake.add(20)
    for body in (b"<html>", b'{"other": 1}', b'"text"', b"", b"[" * 10_000, b'{"value": 1}'):
        if log.fake.provider == "zitadel" and body.startswith(b"{"):
            continue  # a search without a result has no events
        log.fake.script = [lambda _, b=body: (200, {}, b)]
        with pytest.raises(PullError, match="not JSON"):
            log.pull()
    log.pull()
    assert log.ids() == log.fake.ids()


def test_a_bad_record_stops_nothing(log, tmp_path):
    """It is counted and kept, and the others of its page are stored."""
    log.start(rejects=tmp_path / "rejects")
    log.fake.add(20)
    for number, bad in ((3, 5), (8, {}), (9, None), (11, {"log_id": ["x"]})):
        log.fake.records[number] = (AT + timedelta(seconds=number), bad)
    bad_time = record(log.fake.provider, "x", AT)
    for member in ("date", "published", "time", "creationDate", "createdDateTime"):
        if member in bad_time:
            bad_time[member] = "no time"
    log.fake.records[12] = (AT + timedelta(seconds=12), bad_time)
    if log.fake.provider == "auth0":
        log.fake._PAGES = {"auth0": _auth0_by_number}
    log.pull()
    kept = [n for n in range(20) if n not in (3, 8, 9, 11, 12)]
    assert len(log.ids()) == len(kept)
    row = log.row()
    assert row.refused >= 1
    assert row.refused + row.skipped >= 5
    rejected = (tmp_path / "rejects").read_text().splitlines()
    assert any("no time" in line for line in rejected)


def _auth0_by_number(fake, query, _body):
    begin = int(query["from"][0]) + 1 if "from" in query else 0
    found = [one for _, one in fake.records[begin : begin + fake.page]]
    return 200, {}, found


def test_a_time_in_the_future_hides_no_later_record(log):
    """A record with an invented time is refused, and those after it are read."""
    log.fake.add(10)
    far = AT + timedelta(days=3650)
    log.fake.records.append((far, record(log.fake.provider, f"{10:020}", far)))
    log.pull()
    log.fake.add(10)
    log.pull()
    log.pull()
    assert len(log.ids()) == 20


def test_a_cursor_that_the_provider_has_forgotten_begins_anew(log):
    """A refused token of a page leads back to a time, from which the log is read again."""
    log.fake.add(30)
    log.pull()
    log.fake.add(30)
    log.fake.script = [lambda _: (400, {}, {"error": "invalid after"})]
    if log.fake.provider in ("keycloak", "entra-graph", "zitadel"):
        log.fake.script = [lambda _: None, *log.fake.script]
    log.pull()
    log.pull()
    assert log.ids() == log.fake.ids()


def test_a_wrong_address_is_an_error(log):
    log.fake.script = [lambda _: (404, {}, {})] * 9
    with pytest.raises(PullError, match="status 404"):
        log.pull()
    assert len(log.fake.requests) <= 2


def test_the_first_pull_begins_where_it_is_told(log):
    """With --since, earlier records are left out where the API can search by time."""
    log.fake.add(90)
    log.start(since=f"{AT + timedelta(seconds=60):%Y-%m-%dT%H:%M:%SZ}")
    log.pull()
    assert set(log.fake.ids()[60:]) <= set(log.ids())
    assert "1970" not in log.fake.requests[0]


def test_of_two_pulls_at_once_one_goes_on(log):
    """Another process has stored a page meanwhile: this pull ends without an error."""
    log.fake.add(40)
    other = {}

    def meanwhile(_):
        if not other:
            other["done"] = True
            with log.database.engine.begin() as connection:
                moved = sa.update(source_positions).values(version=source_positions.c.version + 1)
                connection.execute(moved)

    log.fake.script = [lambda _: None, meanwhile]
    assert log.source.turn() is None
    log.pull()
    assert log.ids() == log.fake.ids()
    assert log.row().accepted == 40


def test_a_pull_is_due_once_in_its_interval(log):
    """Schedulers on one database take turns."""
    log.fake.add(5)
    log.source.every = 60
    log.source.turn()
    sent = len(log.fake.requests)
    log.start()
    log.source.every = 60
    log.source.turn()
    assert len(log.fake.requests) == sent


def test_credentials_are_sent_to_the_api_alone(log):
    log.fake.add(3)
    log.pull()
    scheme = "SSWS " if log.fake.provider == "okta" else "Bearer token-"
    assert all(one["authorization"].startswith(scheme) for one in log.fake.headers)
    assert not any(SECRET in request for request in log.fake.requests)
    assert SECRET not in log.row().position
