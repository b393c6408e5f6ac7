"""``python -m benchmarks [ROW…]``: measure rows, print the table; exit 1 if a limit is missed."""

import argparse
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import (
    contention,
    duck,
    formats,
    ingest,
    judging,
    processes,
    purge,
    reads,
    rollups,
    sizes,
    sqlite,
    upserts,
)
from benchmarks.bench import Bench
from benchmarks.figures import BenchmarkError, Failure, Figure
from benchmarks.report import Line, circumstances, text_table, write_table

ROWS: dict[str, Callable[[Bench], Iterator[Figure]]] = {
    "R1": rollups.from_empty,
    "R2": rollups.next_batch,
    "R3": rollups.late_events,
    "R4": sqlite.rollups,
    "S1": reads.trend,
    "S2": reads.reports,
    "S3": reads.unchanged,
    "S4": contention.under_load,
    "S5": contention.history,
    "I1": ingest.by_http,
    "I2": ingest.from_files,
    "I3": formats.from_logs,
    "D1": duck.reads,
    "D2": duck.loads,
    "U1": upserts.tokens,
    "B1": sizes.bytes_of_rows,
    "P1": purge.due_events,
    "J1": judging.passes,
    "M1": processes.memory,
    "T1": processes.start,
}


def main() -> int:
    options = _options()
    # SIGTERM raises an exception, as Ctrl-C does, so that the server and the files are removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    bench = Bench(options.scale, options.repetitions, options.seconds)
    lines: list[Line] = []
    try:
        for row in options.rows or ROWS:
            lines += _measured(bench, row)
        circumstance = circumstances(
            bench.scale, bench.repetitions, bench.seconds, bench.cluster.version
        )
        print(f"{circumstance}\n\n{text_table(lines)}", flush=True)
        if options.write:
            write_table(options.write, lines, circumstance)
    finally:
        bench.close()
    return 0 if all(line.reached for line in lines) else 1


def _measured(bench: Bench, row: str) -> list[Line]:
    """The lines of a row, also printed. A row that cannot be measured does not stop the others."""
    began, measure = time.monotonic(), ROWS[row]
    lines: list[Line] = []
    try:
        for figure in measure(bench):
            lines.append(figure)
    except Exception as error:  # printed in full; the other rows are still measured
        known = isinstance(error, BenchmarkError)
        print(error if known else traceback.format_exc(), file=sys.stderr)
        reason = str(error).strip().splitlines()[-1] if known else "could not be measured"
        lines.append(Failure(row, _title(measure), reason))
    print("\n".join("  ".join(line.cells) for line in lines), file=sys.stderr)
    print(f"{row} took {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return lines


def _title(measure: Callable[[Bench], Iterator[Figure]]) -> str:
    """The title of a row, from its function's docstring."""
    return (measure.__doc__ or "").partition(": ")[2].rstrip(".")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure the service beside its rivals.",
        epilog="; ".join(measure.__doc__ or "" for measure in ROWS.values()),
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; all")
    parser.add_argument("--scale", type=float, default=1.0, help="of all numbers of events")
    parser.add_argument("--repetitions", type=int, default=5, help="of each measurement")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each load by HTTP")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table into it")
    options = parser.parse_args()
    if unknown := [row for row in options.rows if row not in ROWS]:
        parser.error(f"no such row: {', '.join(unknown)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
