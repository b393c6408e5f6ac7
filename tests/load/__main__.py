"""``python -m tests.load``: exits 0 when nothing was lost, doubled or refused."""

import argparse
import logging
import signal
import sys
from pathlib import Path

from tests.load.report import write
from tests.load.run import Plan, measure


def main() -> int:
    options = vars(_options())
    document = options.pop("into")
    logging.getLogger("psycopg").setLevel(logging.ERROR)  # lost connections are to be expected
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers end, too
    report = measure(Plan(**options), _say)
    print(report.table(), flush=True)
    if not report.exact:
        print(report.explain(), file=sys.stderr)
        return 1
    if document:
        write(report, document)
    return 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="The service under load, a killed scheduler, a crash, then a recount.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    options = {
        "seconds": "the load is held",
        "maximum-seconds": "the maximum is measured before",
        "clients": "at once for the maximum",
        "share": "of the maximum that is held",
        "rate": "requests per second that are held instead of a share; 0: the share",
        "batch": "events in a batch",
        "interval": "seconds between two rollups",
    }
    for name, text in options.items():
        default = getattr(Plan, name.replace("-", "_"))
        parser.add_argument(f"--{name}", type=type(default), default=default, help=text)
    parser.add_argument("--into", type=Path, help="document for the table, when all went well")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
