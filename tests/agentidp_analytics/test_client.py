"""The client library against a service that fails in every way that it has to bear."""

import logging
import random
import threading
import time
import uuid
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest

from agentidp_analytics.buffer import Buffer, Counts, Limits
from agentidp_analytics.client import Client, Rejected
from agentidp_analytics.delivery import Answer, Service, retry_after
from tests.agentidp_analytics.conftest import KEY, FakeService, reply, reset, until

ENOUGH = 60.0


def agents(fake: FakeService) -> list[str]:
    return sorted(event["agentId"] for event in fake.stored.values())


def test_events_arrive_in_batches_as_the_api_takes_them(fake, make):
    """Requests are gzipped NDJSON with the key, and invalid events are to be skipped."""
    client = make(batch=3, interval_seconds=30.0)
    moment = datetime(2026, 4, 1, 9, tzinfo=UTC)
    client.record_token(
        "a", event_id="e1", issued_at=moment, agent_name="Ä\n", organization_id="org-1"
    )
    for agent in "bc":
        client.record_token(agent)
    until(lambda: fake.stored)
    ((path, headers, events),) = fake.requests
    assert path == "/api/v1/events?invalid=skip"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert headers["Content-Type"] == "application/x-ndjson"
    assert events[0] == {
        "id": "e1",
        "organizationId": "org-1",
        "agentId": "a",
        "issuedAt": "2026-04-01T09:00:00+00:00",
        "agentName": "Ä\n",
    }
    assert events[1].keys() == {"id", "agentId", "issuedAt"}
    assert len({uuid.UUID(event["id"]) for event in events[1:]}) == 2
    assert abs(datetime.fromisoformat(events[1]["issuedAt"]) - datetime.now(UTC)).seconds < ENOUGH


def hang(handler: Any) -> None:
    """Say nothing until the client gives up."""
    handler.connection.settimeout(ENOUGH)
    handler.rfile.read(int(handler.headers["Content-Length"]))
    assert handler.connection.recv(1) == b""


def drip(handler: Any) -> None:
    """Send an answer that never ends, byte by byte."""
    handler.send_response(202)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b" ")
            time.sleep(0.02)
    except OSError:
        pass


def cut(handler: Any) -> None:
    """Store nothing, and end in the middle of an answer."""
    handler.send_response(202)
    handler.send_header("Content-Length", "100")
    handler.end_headers()
    handler.wfile.write(b'{"received"')


FAILURES = {
    "429": lambda handler: reply(handler, 429, {"code": "RATE_LIMIT_EXCEEDED"}),
    "500": lambda handler: reply(handler, 500, {"code": "INTERNAL_ERROR"}),
    "503": lambda handler: reply(handler, 503, {"code": "SERVICE_UNAVAILABLE"}),
    "401": lambda handler: reply(handler, 401, {"code": "UNAUTHORIZED"}),
    "302": lambda handler: reply(handler, 302, {}),
    "another program": lambda handler: reply(handler, 200, {"accepted": 9}),
    "another program's 202": lambda handler: reply(handler, 202, ["queued"]),
    "not HTTP": lambda handler: handler.wfile.write(b"hello\n"),
    "reset": reset,
    "hang": hang,
    "drip": drip,
    "cut": cut,
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_a_failed_request_is_repeated(fake, make, failure):
    """Whatever fails, the same events are sent again and stored once."""
    fake.script = [failure, failure]
    # Only these end by the limit; on a busy machine a good answer may take a while.
    client = make(request_seconds=1.0 if failure in (hang, drip, cut) else 30.0)
    for number in range(5):
        client.record_token(f"agent-{number}")
    assert client.flush(ENOUGH)
    assert agents(fake) == [f"agent-{number}" for number in range(5)]
    assert client.counts == Counts(recorded=5, accepted=5)


def test_a_lost_answer_doubles_nothing(fake, make):
    """A batch that was stored, but without an answer, is sent again under the same ids."""

    def stored_then_reset(handler: Any) -> None:
        body, handler.wfile = handler.wfile, open("/dev/null", "wb")  # noqa: SIM115
        with handler.wfile:
            fake.answer(handler)
        handler.wfile = body
        reset(handler)

    fake.script = [stored_then_reset]
    client = make()
    client.record_token("a")
    assert client.flush(ENOUGH)
    assert agents(fake) == ["a"]
    assert client.counts == Counts(recorded=1, duplicates=1)


def test_a_long_failure_is_logged_once_and_so_is_its_end(make, fake, caplog):
    caplog.set_level(logging.INFO, "agentidp_analytics")
    fake.script = [503] * 20
    client = make()
    client.record_token("a")
    assert client.flush(ENOUGH)
    assert [record.message for record in caplog.records] == [
        "events are not delivered, and sent again: status 503 X",
        "events are delivered again",
    ]


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_the_least_pause(fake, make, monkeypatch, status):
    """A request is not repeated before the service's Retry-After is over."""
    asked = []
    real = Buffer.pause

    def pause(buffer: Buffer, seconds: float, least: float) -> bool:
        asked.append((seconds, least))
        return real(buffer, 0.01, 0.0)

    monkeypatch.setattr(Buffer, "pause", pause)
    fake.script, fake.retry_after = [status, status], "7"
    client = make()
    client.record_token("a")
    assert client.flush(ENOUGH)
    assert [least for _, least in asked] == [7.0, 7.0]
    assert all(7.0 < seconds < 7.1 for seconds, _ in asked)


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [
        ("0", 0, 0),
        ("120", 120, 120),
        (" 5 ", 5, 5),
        ("99999999999999999999", 3600, 3600),
        (format_datetime(datetime(2100, 1, 1, tzinfo=UTC), usegmt=True), 3600, 3600),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0),
        ("Wed, 21 Oct 2015 07:28:00", 0, 0),
        *((text, 0, 0) for text in ("", "-1", "soon", "1.5", "²", "Wed, 99 Oct 2015 07:28:00 GMT")),
    ],
)
def test_retry_after_is_seconds_or_a_date(text, least, most):
    assert least <= retry_after(text) <= most


def test_pauses_grow_and_differ(monkeypatch):
    """Each failure makes the pause longer, up to a minute, and no two clients keep step."""
    asked: list[float] = []
    monkeypatch.setattr(Buffer, "pause", lambda _, seconds, least: asked.append(seconds))
    client = Client("http://127.0.0.1:9", KEY)
    tries = [*range(20), *[5000] * 50]
    for number in tries:
        client._pause(number, Answer(503, {}, 0.0, "status 503"))
    for number, pause in zip(tries, asked, strict=True):
        longest = min(60.0, 0.5 * 2 ** min(number, 10))
        assert longest / 2 <= pause <= longest
    assert len(set(asked)) == len(tries)


@pytest.mark.parametrize("status", [400, 403, 413, 422])
def test_a_refused_batch_is_halved_down_to_its_bad_event(fake, make, status):
    """One event that makes the service refuse its whole batch does not block the others."""
    fake.refuses = lambda events: status if any(e["agentId"] == "bad" for e in events) else 0
    rejected: list[Rejected] = []
    client = make(on_rejected=rejected.append, batch=64, interval_seconds=0.5)
    for number in range(63):
        client.record_token("bad" if number == 40 else f"agent-{number:02}")
    assert client.flush(ENOUGH)
    assert agents(fake) == [f"agent-{number:02}" for number in range(63) if number != 40]
    assert client.counts == Counts(recorded=63, accepted=62, rejected=1)
    ((event, field, message),) = rejected
    assert (event["agentId"], field, message) == ("bad", "", "no")


def test_a_batch_that_is_too_large_is_sent_in_parts(fake, make):
    """After 413 the client sends smaller batches, until the service takes them."""
    fake.refuses = lambda events: 413 if len(events) > 3 else 0
    client = make(batch=20, interval_seconds=0.5)
    for number in range(20):
        client.record_token(f"agent-{number:02}")
    assert client.flush(ENOUGH)
    assert len(fake.stored) == 20
    assert client.counts == Counts(recorded=20, accepted=20)


def test_an_answer_before_the_end_of_the_body_is_read(fake, make):
    """A proxy may refuse a large body before it has read it, and close the connection."""

    def early(handler: Any) -> None:
        reply(handler, 413, {})
        handler.close_connection = True

    noise = random.Random(1)
    client = make(batch=30, interval_seconds=30.0)
    fake.script = [early]
    for number in range(30):
        name = "".join(chr(noise.randrange(0x4E00, 0x9FFF)) for _ in range(4000))
        client.record_token(f"agent-{number}", agent_name=name)
    assert client.flush(ENOUGH)
    assert client.counts == Counts(recorded=30, accepted=30)


@pytest.mark.parametrize("status", [401, 403, 404, 405, 415])
def test_a_wrong_key_or_url_costs_no_event(fake, make, status):
    """While even an empty batch is refused, no event is blamed, and all of them wait."""
    may_recover, has_recovered = threading.Event(), threading.Event()

    def refuses(events: Any) -> int:
        if has_recovered.is_set():
            return 0
        # Not between a batch and the empty one after it: an event would rightly be blamed. After
        # 401, which never blames one, there is no empty batch.
        if may_recover.is_set() and (status == 401 or not events):
            has_recovered.set()
        return status

    fake.refuses = refuses
    client = make()
    for number in range(10):
        client.record_token(f"agent-{number}")
    until(lambda: len(fake.requests) > 8)
    assert client.counts == Counts(recorded=10, waiting=10)
    may_recover.set()
    assert client.flush(ENOUGH)
    assert client.counts == Counts(recorded=10, accepted=10)


def test_a_proxy_that_refuses_gzip_costs_no_event(fake, make, caplog):
    """No event is to blame for what every batch has."""
    fake.refuses_gzip = True
    client = make()
    for number in range(10):
        client.record_token(f"agent-{number}")
    until(lambda: "status 415" in caplog.text)
    assert client.counts == Counts(recorded=10, waiting=10)
    fake.refuses_gzip = False
    assert client.flush(ENOUGH)
    assert client.counts == Counts(recorded=10, accepted=10)


def test_rejected_events_are_reported_and_the_rest_is_stored(fake, make, caplog):
    """Each event that the service lists reaches the callback; the log has no value of it."""
    fake.rejects = lambda event: event["agentId"].startswith("secret")
    rejected: list[Rejected] = []
    client = make(on_rejected=rejected.append, batch=10)
    for number in range(10):
        client.record_token(f"secret-{number}" if number % 3 == 0 else "agent")
    assert client.flush(ENOUGH)
    assert [one.event["agentId"] for one in rejected] == [f"secret-{n}" for n in (0, 3, 6, 9)]
    assert {(one.field, one.message) for one in rejected} == {("agentId", "is wrong")}
    assert client.counts == Counts(recorded=10, accepted=6, rejected=4)
    assert "events were rejected; the first: agentId: is wrong" in caplog.text
    assert "secret" not in caplog.text


def test_all_rejected_events_are_counted(fake, make):
    """The service lists a hundred of them; the others are counted as well."""
    fake.rejects = lambda event: True
    rejected: list[Rejected] = []
    client = make(on_rejected=rejected.append, batch=250, interval_seconds=30.0)
    for _ in range(250):
        client.record_token("a")
    assert client.flush(ENOUGH)
    assert len(rejected) == 100
    assert client.counts == Counts(recorded=250, rejected=250)


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    "event",
    [
        {"agent_id": Unprintable()},
        {"agent_id": b"a"},
        {"agent_id": "a", "agent_name": "x" * 70_000},
        {"agent_id": "a", "issued_at": object()},
    ],
    ids=["object", "bytes", "large", "no time"],
)
def test_an_event_that_is_no_json_is_rejected_at_once(fake, make, event):
    """A wrong argument raises nothing in the provider's request, and stops no other event."""
    rejected: list[Rejected] = []
    client = make(on_rejected=rejected.append)
    client.record_token(**event)
    client.record_token(uuid.UUID(int=7))
    assert client.flush(ENOUGH)
    assert agents(fake) == [str(uuid.UUID(int=7))]
    assert len(rejected) == 1
    assert client.counts == Counts(recorded=2, accepted=1, rejected=1)


def test_a_callback_that_raises_stops_nothing(fake, make, caplog):
    fake.rejects = lambda event: event["agentId"] == "bad"

    def fail(rejected: Rejected) -> None:
        raise RuntimeError("secret")

    client = make(on_rejected=fail)
    for agent in ("bad", "good"):
        client.record_token(agent)
        assert client.flush(ENOUGH)
    assert agents(fake) == ["good"]
    assert "on_rejected raised RuntimeError" in caplog.text
    assert "secret" not in caplog.text


def test_a_full_queue_drops_and_counts_and_never_blocks(fake, make, caplog):
    """While the service hangs, the caller goes on; the events beyond the queue are counted."""

    def wait(handler: Any) -> None:
        fake.released.wait(ENOUGH)
        fake.answer(handler)

    fake.script = [wait]
    client = make(queued=10, batch=5)
    client.record_token("first")
    until(lambda: not fake.script)
    longest = 0.0
    for number in range(5000):
        began = time.monotonic()
        client.record_token(f"agent-{number:04}")
        longest = max(longest, time.monotonic() - began)
    assert client.counts == Counts(recorded=5001, dropped=4990, waiting=11)
    assert longest < 10  # a caller that waits for the service would wait for a minute
    fake.released.set()
    assert client.flush(ENOUGH)
    assert agents(fake) == [*(f"agent-{number:04}" for number in range(10)), "first"]
    assert client.counts == Counts(recorded=5001, accepted=11, dropped=4990)
    until(lambda: "the queue was full: 4990 events were dropped so far" in caplog.text)


def test_threads_share_a_client(fake, make):
    client = make(queued=100_000, batch=100)
    barrier = threading.Barrier(8)

    def work(name: int) -> None:
        barrier.wait(ENOUGH)
        for number in range(500):
            client.record_token(f"agent-{name}-{number}")

    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.flush(ENOUGH)
    assert len(fake.stored) == 4000
    assert len(set(agents(fake))) == 4000
    assert client.counts == Counts(recorded=4000, accepted=4000)
    assert sum(thread.name == "agentidp-analytics" for thread in threading.enumerate()) <= 1


def test_a_batch_has_at_most_a_mebibyte(fake, make):
    client = make(batch=1000, interval_seconds=0.2)
    for number in range(40):
        client.record_token(str(number), agent_name="x" * 60_000)
    assert client.flush(ENOUGH)
    assert client.counts.accepted == 40
    assert max(len(events) for _, _, events in fake.requests) <= 18


def test_closing_sends_what_is_left(fake, make):
    """The end does not wait for the interval of a batch, and later events are dropped."""
    client = make(interval_seconds=1000.0)
    client.record_token("a")
    client.close()
    assert agents(fake) == ["a"]
    client.record_token("late")
    client.close()
    assert client.counts == Counts(recorded=2, accepted=1, dropped=1)


def test_closing_in_a_pause_tries_once_more(fake, make, monkeypatch):
    """A client that waits for its next attempt makes it when it is closed."""
    monkeypatch.setattr("agentidp_analytics.client.FIRST_PAUSE_SECONDS", 1000.0)
    monkeypatch.setattr("agentidp_analytics.client.LONGEST_PAUSE_SECONDS", 1000.0)
    fake.script = [503]
    client = make()
    client.record_token("a")
    until(lambda: fake.requests)
    client.close(ENOUGH)
    assert client.counts == Counts(recorded=1, accepted=1)


def test_closing_keeps_to_retry_after(fake, make, caplog):
    """If the service must be left alone for longer than the end may take, the events are lost."""
    fake.script, fake.retry_after = [503], "1000"
    client = make()
    client.record_token("a")
    until(lambda: fake.requests)
    client.close(1)
    assert len(fake.requests) == 1
    assert client.counts == Counts(recorded=1, dropped=1)
    assert "1 events were not sent before the end, and are lost" in caplog.text


@pytest.mark.parametrize("failing", [hang, 503, 401, reset], ids=["hang", "503", "401", "reset"])
def test_closing_is_bounded_in_time(fake, make, failing):
    fake.script = [failing] * 100_000
    client = make()
    for _ in range(3):
        client.record_token("a")
    began = time.monotonic()
    client.close(0.5)
    assert time.monotonic() - began < ENOUGH / 2
    assert client.counts == Counts(recorded=3, dropped=3)


def test_flush_says_whether_it_was_in_time(fake, make):
    fake.script = [503] * 100_000
    client = make(queued=1)
    assert client.flush(0)
    client.record_token("a")
    assert not client.flush(0.05)
    fake.script = []
    assert client.flush(ENOUGH)


def test_a_signal_handler_may_record_a_token(fake, make):
    """The lock is reentrant: a handler may run while its thread holds it."""
    client = make()
    with client._buffer._changed:
        client.record_token("a")
    assert client.flush(ENOUGH)
    assert agents(fake) == ["a"]


def test_a_token_is_fetched_for_each_request(fake, make):
    """A function as the key can replace a token that has expired."""
    tokens = iter(["old", "new"])
    fake.refuses = lambda events: (
        0 if fake.requests[-1][1]["Authorization"] != "Bearer old" else 401
    )
    client = make(lambda: next(tokens))
    client.record_token("a")
    assert client.flush(ENOUGH)
    assert [headers["Authorization"] for _, headers, _ in fake.requests] == [
        "Bearer old",
        "Bearer new",
    ]


def test_a_key_that_cannot_be_had_is_asked_for_again(fake, make, caplog):
    """Neither an error of the function nor an unusable key is printed."""
    keys: Any = iter([RuntimeError("secret-1"), "secret-2\nX: y", "", KEY])

    def key() -> str:
        found = next(keys)
        if isinstance(found, Exception):
            raise found
        return str(found)

    client = make(key)
    client.record_token("a")
    assert client.flush(ENOUGH)
    assert agents(fake) == ["a"]
    assert "the key could not be had: RuntimeError" in caplog.text
    assert "secret" not in caplog.text


def test_a_key_from_a_file_may_end_with_a_newline(fake, make):
    client = make(f"{KEY}\n")
    client.record_token("a")
    assert client.flush(ENOUGH)
    assert fake.requests[0][1]["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("key", ["", " ", "agk_a b", "agk_a\r\nX: y", "agk_ä", "agk_\x00"])
def test_an_unusable_key_is_refused_without_its_value(key):
    with pytest.raises(ValueError, match="the key is empty, or has a space") as caught:
        Service("https://analytics.example.com", key)
    assert "agk_" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        *("", "analytics.example.com", "ftp://analytics.example.com", "file:///etc/passwd"),
        *("https://", "https://user:secret@a.example", "https://a.example/?x=1"),
        *("https://a.example/#x",),
    ],
)
def test_an_unusable_url_is_refused(url):
    with pytest.raises(ValueError, match="the url must") as caught:
        Client(url, KEY)
    assert "secret" not in str(caught.value)


def test_a_base_path_is_kept(fake, pauses):
    with Client(f"{fake.url}/analytics/", KEY) as client:
        client.record_token("a")
    assert fake.requests[0][0] == "/analytics/api/v1/events?invalid=skip"


@pytest.mark.parametrize("name", Limits._fields)
def test_a_limit_of_zero_is_refused(name):
    with pytest.raises(ValueError, match="every limit must be above 0"):
        Client("https://a.example", KEY, limits=Limits(**{name: 0}))


def test_the_key_is_in_no_log_and_no_text(fake, make, caplog):
    caplog.set_level(logging.DEBUG)
    fake.script = [401, 403, 503, reset, 400]
    client = make()
    client.record_token("a")
    assert client.flush(ENOUGH)
    assert KEY not in caplog.text
    assert KEY not in repr(client) + repr(client._service)


def test_a_redirect_takes_no_key_along(fake, make):
    """The client sends its key to the host of its URL only."""
    other = FakeService()

    def lead_away(handler: Any) -> None:
        handler.send_response(307)
        handler.send_header("Location", f"{other.url}/api/v1/events")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    fake.script = [lead_away] * 3
    client = make()
    client.record_token("a")
    assert client.flush(ENOUGH)
    other.end()
    assert other.requests == []
    assert agents(fake) == ["a"]
