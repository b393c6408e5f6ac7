"""S1 to S3: reads over HTTP, compared with a constant response and with each other."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

from benchmarks import data
from benchmarks.bench import Bench
from benchmarks.figures import (
    BenchmarkError,
    Figure,
    Rival,
    Samples,
    at_most,
    interleaved,
    more,
    seconds,
)
from benchmarks.service import Load, Read, Service, service
from tests.support.tokens import bearer

HISTORY = 1_000_000
TOKEN_SECONDS = 7200
API = "/api/v1/analytics"
TREND, HEATMAP, AGENTS = "tokens?days=30", "agents/activity", "agents"


def reads(report: str, readers: int = data.READERS, who: str = "reader") -> list[Read]:
    """Requests for a report, one for each reading tenant, with the tenant's token."""
    expiry = int(datetime.now(UTC).timestamp()) + TOKEN_SECONDS
    return [
        Read(f"{API}/{report}", bearer(f"{who}-{number}", exp=expiry))
        for number in range(1, readers + 1)
    ]


@contextmanager
def readable_service(bench: Bench) -> Iterator[Service]:
    """The service on a database with reports to read."""
    url = bench.cluster.url(bench.readable(bench.scaled(HISTORY)))
    with service(url, bench.folder) as running:
        yield running


@contextmanager
def writable_service(bench: Bench) -> Iterator[Service]:
    """The service on a copy of that database, which may be changed."""
    with (
        bench.cluster.copy(bench.readable(bench.scaled(HISTORY))) as name,
        service(bench.cluster.url(name), bench.folder) as running,
    ):
        yield running


def answers(running: Service, wanted: Sequence[Read], status: int = 200) -> list[bytes]:
    """The body of the response to each request, which is sent once.

    Raises:
        BenchmarkError: a response has another status.
    """
    found = [running.answer(read) for read in wanted]
    if {answer[0] for answer in found} != {status}:
        raise BenchmarkError(f"answers other than {status}: {found[0]}")
    return [answer[2] for answer in found]


def loads(bench: Bench, running: Service, *kinds: Sequence[Read]) -> list[list[Load]]:
    """The loads of each kind of request, in turns, after a warm-up second of each."""
    for kind in kinds:
        running.load(kind, 1)
    turns = [lambda kind=kind: running.load(kind, bench.seconds) for kind in kinds]
    return interleaved(bench.repetitions, turns)


def rates(found: Sequence[Load]) -> Samples:
    """The requests per second of each load."""
    return Samples(tuple(load.rate for load in found), "/s")


def slowest(found: Sequence[Load]) -> Samples:
    """The 99th percentile of each load's latency."""
    return seconds([load.p99 for load in found], "ms")


def trend(bench: Bench) -> Iterator[Figure]:
    """S1: the trend of 30 days, read on 16 connections."""
    with readable_service(bench) as running:
        size = len(answers(running, reads(TREND))[0])
        constant = [Read(f"/benchmark/{size}", {})]
        ours, rival = loads(bench, running, reads(TREND), constant)
    work, name = f"GET {TREND}", "a constant body"
    yield more("S1a", work, rates(ours), Rival(name, rates(rival)), 0.45)
    yield at_most("S1b", f"{work}: p99", slowest(ours), Rival(name, slowest(rival)), 4)


def reports(bench: Bench) -> Iterator[Figure]:
    """S2: the other reports, compared with the trend."""
    year, decade = f"GET {HEATMAP}, 12 months", f"GET {HEATMAP}, 120 months"
    agents = f"GET {AGENTS}, {data.READER_AGENTS:,} agents"
    kinds = {
        year: (reads(HEATMAP), 7 * 24),
        decade: (reads(HEATMAP, data.OLD_READERS, "old"), 7 * 24),
        agents: (reads(AGENTS), data.READER_AGENTS),
    }
    with readable_service(bench) as running:
        for wanted, items in kinds.values():
            if answers(running, wanted[:1])[0].count(b"ount") != items:
                raise BenchmarkError(f"an answer to {wanted[0].path} lacks some of {items} items")
        found = loads(bench, running, reads(TREND), *(kind[0] for kind in kinds.values()))
    trends, years, decades, lists = map(rates, found)
    rival = Rival(f"GET {TREND}", trends)
    yield more("S2a", year, years, rival, 0.5)
    yield more("S2b", decade, decades, Rival(year, years), 1 / 1.1)
    yield more("S2c", agents, lists, rival, 0.3)


def unchanged(bench: Bench) -> Iterator[Figure]:
    """S3: the trend for clients that have it already (304)."""
    with readable_service(bench) as running:
        plain = reads(TREND)
        known = [
            Read(read.path, read.headers | {"If-None-Match": running.answer(read)[1]["ETag"]})
            for read in plain
        ]
        answers(running, known, 304)
        ours, rival = loads(bench, running, known, plain)
    work = f"GET {TREND} with If-None-Match"
    yield more("S3", work, rates(ours), Rival(f"GET {TREND}", rates(rival)), 1)
