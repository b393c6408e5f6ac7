"""Serving metrics to Prometheus, on a bind of their own.

``python -m app.exporter HOST PORT FOLDER`` serves what gunicorn's workers share in a folder,
until its standard input ends: that is, until gunicorn does, however it does. Then it empties
the folder.
"""

import logging
import signal
import sys
import time
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector

from app.variables import Bind

log = logging.getLogger("app.exporter")

RETRY_SECONDS = 1.0


def serve(bind: Bind, registry: CollectorRegistry = REGISTRY) -> bool:
    """Serve a registry from a thread; whether the address was free."""
    try:
        start_http_server(bind.port, bind.host, registry)
    except OSError as error:
        log.error("metrics cannot be served on %s: %s", bind, error.strerror or error)
        return False
    return True


def main(host: str, port: str, folder: str) -> None:
    """Serve what the workers share. It ends no service when it cannot, and tries again."""
    # Ctrl-C reaches the whole group; gunicorn says when the end is there.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(format="%(message)s")
    registry = CollectorRegistry()
    MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]  # the library's gap
    while not serve(Bind(host, int(port)), registry):
        time.sleep(RETRY_SECONDS)
    sys.stdin.read()
    for file in Path(folder).glob("*.db"):
        file.unlink(missing_ok=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
