"""M1 and T1: memory, and the time to start."""

from collections.abc import Iterator

from benchmarks.bench import Bench
from benchmarks.figures import Figure, Rival, Samples, at_most, below, interleaved, seconds
from benchmarks.ingest import Poster
from benchmarks.programs import environment, flask, peak_memory, run
from benchmarks.reads import AGENTS, HEATMAP, TREND, reads, writable_service
from benchmarks.rollups import HISTORY

REQUESTS = 100_000
LIMIT_MB = 120
FEW = 20  # readers that request the slower reports
IMPORTS = "import flask, sqlalchemy, psycopg, alembic"
STARTS = 2  # times the repetitions, because a start is short


def memory(bench: Bench) -> Iterator[Figure]:
    """M1: the memory of a rollup run and of the web's workers."""
    for letter, events in zip(
        "ab", (bench.scaled(HISTORY // 10), bench.scaled(HISTORY)), strict=True
    ):
        with bench.cluster.copy(bench.raw(events)) as name:
            peak = flask(bench.cluster.url(name), "rollup", "run").peak
        work = f"flask rollup run, {events:,} events to count"
        yield below(f"M1{letter}", work, Samples((peak,), "MB"), LIMIT_MB)
    done, wanted = 0, bench.scaled(REQUESTS)
    mixed = reads(TREND) + reads(HEATMAP, FEW) + reads(AGENTS, FEW)
    with writable_service(bench) as running:
        Poster(bench).post(running, bench.seconds)
        while done < wanted:
            done += running.load(mixed, bench.seconds).requests
        peaks = Samples(tuple(peak_memory(pid) for pid in running.workers), "MB")
    yield below("M1c", f"each web worker, after {wanted:,} requests and batches", peaks, LIMIT_MB)


def start(bench: Bench) -> Iterator[Figure]:
    """T1: a rollup run with nothing to do."""
    url = bench.cluster.url(bench.counted(bench.scaled(100_000)))
    turns = (
        lambda: flask(url, "rollup", "run").seconds,
        lambda: run(environment(url), "-c", IMPORTS).seconds,
    )
    ours, rival = map(seconds, interleaved(STARTS * bench.repetitions, turns))
    yield at_most(
        "T1", "flask rollup run, nothing to do", ours, Rival(f'python -c "{IMPORTS}"', rival), 1.25
    )
