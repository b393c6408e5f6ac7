"""gunicorn's settings and hooks, from the same environment as the service's settings.

In a checkout ``gunicorn.conf.py`` hands them on; an installed package is served by
``gunicorn --config python:app.server.gunicorn_config wsgi:app``.
"""

import os
import shutil
import socket
import struct
import subprocess  # nosec B404  # its call gives its reason, to S603
import sys
import tempfile
from pathlib import Path
from typing import Any

from gunicorn.glogging import Logger

from app.config.settings import ROOT, Settings
from app.errors import SettingsError
from app.storage.schema import refuse_other_schema_once
from app.telemetry import logs, tracing

try:
    settings = Settings.from_environ()
    refuse_other_schema_once(settings)
except SettingsError as error:
    sys.exit(f"error: {error}")

bind = settings.address
worker_class = "app.server.worker.Worker"
workers = settings.web_workers
threads = settings.web_threads
timeout = 60
graceful_timeout = 30
# Longer than a balancer keeps an idle connection (a minute, mostly): whoever closes first
# must not be the one that a request is on its way to.
keepalive = 75
control_socket_disable = True
# X-Forwarded-* is the application's to judge (TRUSTED_PROXIES); by itself gunicorn would take
# the scheme from anybody on this host.
forwarded_allow_ips = ""
secure_scheme_headers: dict[str, str] = {}
forwarder_headers = ""

# Where somebody wants an access log (--access-logfile): the path alone. In the query may be a
# sign-in's code, in the referrer anything.
access_log_format = '%(h)s - - %(t)s "%(m)s %(U)s %(H)s" %(s)s %(b)s "-" "%(a)s"'

# How long a client may be silent in the middle of a request, or not take its answer: it holds a
# thread, and by itself gunicorn would wait for ever for one whose network is gone.
SILENT_SECONDS = 30

SHARED = "PROMETHEUS_MULTIPROC_DIR"
EXPORTER_SECONDS = 5
# How long a thread may go on while another one, whose answer has come from the database, waits
# for the interpreter. Python's 5 ms are as long as several requests take.
TURN_SECONDS = 1e-3


class Log(Logger):  # type: ignore[misc]  # it has no types
    """gunicorn's own lines, among ours, and without the words of a request that it could not
    read or handle: there may be a token in them."""

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
    """Before the first worker: how long clients are waited for, and a folder for the numbers.

    The library chooses when it is first imported whether numbers are shared, so nothing of it
    may be imported in this process before this.
    """
    if server.cfg.threads > settings.web_threads:
        server.log.warning("more threads than WEB_THREADS: some will wait for a connection")
    # Connections have it from who accepts them.
    patience = struct.pack("ll", SILENT_SECONDS, 0)
    for listener in server.LISTENERS:
        listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)
        listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
    os.environ.pop(SHARED, None)
    if settings.metrics_bind is not None:
        os.environ[SHARED] = str(_emptied(settings.metrics_folder))


def _emptied(given: Path | None) -> Path:
    """The folder that was given, without what an earlier process left there; or a new one."""
    try:
        if given is None:
            return Path(tempfile.mkdtemp(prefix="agentidp-analytics-"))
        given.mkdir(mode=0o700, parents=True, exist_ok=True)
        for file in given.glob("*.db"):
            file.unlink(missing_ok=True)
        tempfile.TemporaryFile(dir=given).close()  # workers have to be able to, too
    except OSError as error:
        sys.exit(f"error: {SettingsError(SHARED, f'cannot be used: {error.strerror}')}")
    return given


def pre_fork(server: Any, _worker: Any) -> None:
    """Before each worker: who serves what they count, unless it is there.

    One that was killed comes back so with the next worker, as a reload starts them.
    """
    exporter = getattr(server, "exporter", None)
    if settings.metrics_bind is None or (exporter and exporter.poll() is None):
        return
    if exporter:
        exporter.stdin.close()
    words = [*map(str, settings.metrics_bind), os.environ[SHARED]]
    # S603: this program, and an address that was checked.
    server.exporter = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "app.telemetry.metrics_server", *words],
        cwd=ROOT,
        stdin=subprocess.PIPE,
    )


def post_fork(server: Any, _worker: Any) -> None:
    """In a new worker, before it loads the application."""
    sys.setswitchinterval(TURN_SECONDS)
    if exporter := getattr(server, "exporter", None):
        # The main process's child: only that one's end is the exporter's.
        exporter.stdin.close()
        exporter.returncode = 0
    try:
        tracing.start(settings, "web")
    except SettingsError as error:
        sys.exit(f"error: {error}")


def post_worker_init(worker: Any) -> None:
    """With the application loaded: tell it how it knows that it is to end."""
    from app.telemetry import metrics  # noqa: PLC0415 - see when_ready()

    metrics.describe_process("web")
    if services := _services(worker):
        services.stopping = lambda: not worker.alive


def worker_exit(_server: Any, worker: Any) -> None:
    """Close the worker's database connections, rather than drop them."""
    if services := _services(worker):
        services.database.dispose()
    tracing.stop()


def child_exit(_server: Any, worker: Any) -> None:
    """Take a worker that ended out of what is added up over those that live."""
    if SHARED in os.environ:
        from prometheus_client import multiprocess  # noqa: PLC0415 - see when_ready()

        multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]  # its own gap


def on_exit(server: Any) -> None:
    """End the exporter with the last of the workers."""
    exporter = getattr(server, "exporter", None)
    if exporter is None:
        return
    exporter.stdin.close()
    try:
        exporter.wait(EXPORTER_SECONDS)
    except subprocess.TimeoutExpired:
        exporter.kill()
    if settings.metrics_folder is None:
        shutil.rmtree(os.environ[SHARED], ignore_errors=True)


def _services(worker: Any) -> Any:
    app = getattr(worker, "wsgi", None)  # absent when the application failed to load
    return app and app.extensions["analytics"]
