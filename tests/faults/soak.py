"""``python -m tests.faults.soak``: the fault run at length.

Exits 0 when nothing drifted and every batch was answered in time.
"""

import argparse
import logging
import random
import sys
import tempfile
from pathlib import Path

from tests.faults.harness import Harness, Plan, Report
from tests.support.databases import PostgreSQL
from tests.support.postgresql import Server


def main() -> int:
    options = _options()
    logging.getLogger("psycopg").setLevel(logging.ERROR)  # lost connections are to be expected
    print(f"seed {options.seed}", file=sys.stderr, flush=True)
    report = soak(Plan(findings=True, **vars(options)))
    print(report, flush=True)
    print(report.explain(), file=sys.stderr)
    return 0 if report.exact and report.in_time else 1


def soak(plan: Plan) -> Report:
    """One run on a cluster of its own."""
    server = Server().start()
    try:
        databases = PostgreSQL(server.url("postgres"))
        with tempfile.TemporaryDirectory(prefix="soak-") as folder:
            url = databases.at(databases.create())
            return Harness(plan, server, url, Path(folder)).run()
    finally:
        server.remove()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Writers, jobs, kills and restarts all at once, then a recount.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    options = {
        "events": (1_000_000, "acknowledged at least"),
        "writers": (4, "writing at once"),
        "kills": (50, "of job processes, at least"),
        "restarts": (10, "of PostgreSQL, immediate"),
        "freezes": (2, "of PostgreSQL for 20 s, by SIGSTOP"),
        "locks": (2, "of the state row for 20 s, by a forgotten session"),
        "batch": (1_500, "events in a batch, at most"),
        "window-ids": (5_000, "ids counted in one transaction"),
        "seed": (random.SystemRandom().randrange(10**6), "of everything random"),
    }
    for name, (default, text) in options.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=text)
    parser.add_argument("--kill-pause", type=float, default=1.0, help="mean seconds between kills")
    parser.add_argument("--seconds", type=float, default=1700.0, help="give up after")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
