"""The metrics server: serves metrics to Prometheus on a separate address.

``python -m app.telemetry.metrics_server HOST PORT FOLDER`` serves the metrics that gunicorn's
workers share through a folder. When its standard input is closed, it empties the folder and ends.
gunicorn holds the other end of that pipe, so this happens even if gunicorn is killed.
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
from app.telemetry import logs, metrics_folder

log = logging.getLogger("app.telemetry.metrics_server")

RETRY_SECONDS = 1.0


def serve(
    bind: Bind, wait_for_end: Callable[[float], bool], registry: CollectorRegistry = REGISTRY
) -> None:
    """Serve a registry from a thread, as soon as the address is free.

    Args:
        wait_for_end: waits up to the given seconds for the measured process to end, and returns
            whether it ended.
    """
    for attempt in itertools.count():
        try:
            start_http_server(bind.port, bind.host, registry)
            return
        except OSError as error:
            if attempt == 0:  # logged once, not every second
                log.error("metrics cannot be served on %s: %s", bind, error.strerror or error)
        if wait_for_end(RETRY_SECONDS):
            return


def main(host: str, port: str, folder: str) -> None:
    """Serve the workers' shared metrics until standard input is closed."""
    # Ctrl-C reaches the whole process group. It is ignored here, because gunicorn's workers have
    # to end before this server.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logs.configure(Settings.from_environ())
    registry = CollectorRegistry()
    MultiProcessCollector(registry, folder)  # type: ignore[no-untyped-call]  # the library's gap
    serve(Bind(host, int(port)), _is_input_closed, registry)
    sys.stdin.read()
    metrics_folder.empty(Path(folder))


def _is_input_closed(seconds: float) -> bool:
    return bool(select.select([sys.stdin], [], [], seconds)[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
