"""gunicorn's settings and hooks, from the same environment as the service's settings.

In a checkout ``gunicorn.conf.py`` imports them; an installed package is started with
``gunicorn --config python:app.server.gunicorn_config wsgi:app``.
"""

import socket
import struct
import subprocess  # nosec B404  # its call gives its reason, to S603
import sys
from typing import Any

from gunicorn.glogging import Logger

from app.config.settings import ROOT, Settings
from app.errors import SettingsError
from app.storage.schema import refuse_other_schema
from app.telemetry import logs, metrics_folder, tracing

try:
    settings = Settings.from_environ()
    # Python runs this module once: a reload after a migration does not end a service that works.
    refuse_other_schema(settings)
except SettingsError as error:
    sys.exit(f"error: {error}")

bind = settings.address
worker_class = "app.server.worker.Worker"
workers = settings.web_workers
threads = settings.web_threads
timeout = 60
graceful_timeout = 30
# Load balancers keep an idle connection for a minute, mostly. This has to be longer: else gunicorn
# closes a connection just when the balancer sends a request on it.
keepalive = 75
control_socket_disable = True
# The application judges X-Forwarded-* (TRUSTED_PROXIES). By itself gunicorn would take the scheme
# from any client on this host.
forwarded_allow_ips = ""
secure_scheme_headers: dict[str, str] = {}
forwarder_headers = ""

# The access log that --access-logfile turns on has the path alone. The query may hold a sign-in's
# code, the referrer anything.
access_log_format = '%(h)s - - %(t)s "%(m)s %(U)s %(H)s" %(s)s %(b)s "-" "%(a)s"'

# How long a client may be silent in the middle of a request, or not take its answer. It holds a
# thread meanwhile. By itself gunicorn waits forever for a client whose network is gone.
SILENT_SECONDS = 30
# How long gunicorn's main process waits for the metrics server to end.
METRICS_SERVER_SECONDS = 5
# How long a thread may run while another one, whose answer has come from the database, waits
# for the interpreter. Python's 5 ms are as long as several requests take.
TURN_SECONDS = 1e-3


class Log(Logger):  # type: ignore[misc]  # gunicorn ships no types
    """gunicorn's log lines, in the service's format.

    Lines on a request that gunicorn could not read or handle leave out its text, which may hold
    a token.
    """

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        logs.configure(settings)

    def warning(self, msg: str, *args: object, **kwargs: Any) -> None:
        if msg.startswith("Invalid request from "):
            msg = msg.partition(": ")[0]
        super().warning(msg, *args, **kwargs)

    def exception(self, msg: str, *args: object, **kwargs: Any) -> None:
        if isinstance(sys.exception(), BlockingIOError):  # see SILENT_SECONDS
            self.info("A client was silent for too long")
            return
        if msg.startswith("Error handling request"):
            msg, args = "Error handling a request", ()
        super().exception(msg, *args, **kwargs)


logger_class = Log


def when_ready(server: Any) -> None:
    """Before the first worker: bound the wait for silent clients, and share metrics."""
    if server.cfg.threads > settings.web_threads:
        server.log.warning("more threads than WEB_THREADS: some will wait for a connection")
    # A connection inherits these from the socket that accepts it.
    patience = struct.pack("ll", SILENT_SECONDS, 0)
    for listener in server.LISTENERS:
        listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)
        listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
    if settings.metrics_bind is not None:
        try:
            server.metrics_folder = metrics_folder.share(settings.metrics_folder)
        except SettingsError as error:
            sys.exit(f"error: {error}")


def pre_fork(server: Any, _worker: Any) -> None:
    """Before each worker: start the metrics server, unless it runs.

    So a metrics server that was killed comes back with the next worker, as after a reload.
    """
    running = getattr(server, "metrics_server", None)
    if settings.metrics_bind is None or (running and running.poll() is None):
        return
    if running:
        running.stdin.close()
    words = [*map(str, settings.metrics_bind), str(server.metrics_folder)]
    # S603: this program, and an address that was checked.
    server.metrics_server = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "app.telemetry.metrics_server", *words],
        cwd=ROOT,
        stdin=subprocess.PIPE,
    )


def post_fork(server: Any, _worker: Any) -> None:
    """In a new worker, before it loads the application."""
    sys.setswitchinterval(TURN_SECONDS)
    if running := getattr(server, "metrics_server", None):
        # The metrics server ends when its input is closed: only the main process may hold it.
        running.stdin.close()
        running.returncode = 0
    try:
        tracing.start(settings, "web")
    except SettingsError as error:
        sys.exit(f"error: {error}")


def post_worker_init(worker: Any) -> None:
    """With the application loaded: tell it how to know that the worker is ending."""
    from app.telemetry import metrics  # noqa: PLC0415 - not before metrics_folder.share()

    metrics.describe_process("web")
    if services := _services(worker):
        services.stopping = lambda: not worker.alive


def worker_exit(_server: Any, worker: Any) -> None:
    """Close the worker's database connections, and send its last spans."""
    if services := _services(worker):
        services.database.dispose()
    tracing.stop()


def child_exit(_server: Any, worker: Any) -> None:
    """Take a worker that ended out of what is added up over living workers."""
    metrics_folder.remove_worker(worker.pid)


def on_exit(server: Any) -> None:
    """End the metrics server after the last worker."""
    running = getattr(server, "metrics_server", None)
    if running is None:
        return
    running.stdin.close()
    try:
        running.wait(METRICS_SERVER_SECONDS)
    except subprocess.TimeoutExpired:
        running.kill()
    metrics_folder.remove()


def _services(worker: Any) -> Any:
    app = getattr(worker, "wsgi", None)  # absent when the application failed to load
    return app and app.extensions["analytics"]
