"""Serving metrics to Prometheus, on a bind of their own.

``python -m app.telemetry.metrics_server HOST PORT FOLDER`` serves what gunicorn's workers share
in a folder, until its standard input ends: that is, until gunicorn does, however it does. Then it
empties the folder.
"""

import itertools
import logging
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector

from app.config.parsing import Bind
from app.config.settings import Settings
from app.telemetry import logs

log = logging.getLogger("app.telemetry.metrics_server")

RETRY_SECONDS = 1.0


def serve(
    bind: Bind, ended: Callable[[float], bool], registry: CollectorRegistry = REGISTRY
) -> None:
    """Serve a registry from a thread, as soon as the address is free.

    Args:
        ended: waits so many seconds for the end of what is measured; whether it is there.
    """
    for attempt in itertools.count():
        try:
            start_http_server(bind.port, bind.host, registry)
            return
        except OSError as error:
            if attempt == 0:  # said once, not every second
                log.error("metrics cannot be served on %s: %s", bind, error.strerror or error)
        if ended(RETRY_SECONDS):
            return


def main(host: str, port: str, folder: str) -> None:
    """Serve what the workers share. It ends no service when it cannot, and tries again."""
    # Ctrl-C reaches the whole group; gunicorn says when the end is there.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logs.configure(Settings.from_environ())
    registry = CollectorRegistry()
    MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]  # the library's gap
    serve(Bind(host, int(port)), _ended, registry)
    sys.stdin.read()
    for file in Path(folder).glob("*.db"):
        file.unlink(missing_ok=True)


def _ended(seconds: float) -> bool:
    return bool(select.select([sys.stdin], [], [], seconds)[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
