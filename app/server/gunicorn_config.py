"""gunicorn's settings and hooks; they follow from the service's settings.

In a checkout ``gunicorn.conf.py`` imports them; an installed package is started with
``gunicorn --config python:app.server.gunicorn_config wsgi:app``.
"""

import gc
import subprocess  # nosec B404  # its call gives its reason, to S603
import sys
from typing import Any

from gunicorn.glogging import Logger

from app.config.settings import ROOT, Settings
from app.errors import SettingsError
from app.server.address import check_host
from app.server.clients import ClientSocket, CrowdedError, RequestBody, SilentClientError
from app.storage.schema import refuse_other_schema
from app.telemetry import logs, metrics_folder, tracing
from app.waits import Waits

try:
    settings = Settings.from_environ()
    check_host(settings)
    # A reload of gunicorn does not run this module again. So a reload after a migration does not
    # stop a running service.
    refuse_other_schema(settings)
except SettingsError as error:
    sys.exit(f"error: {error}")

bind = settings.address
worker_class = "app.server.worker.Worker"
workers = settings.web_workers
for_provider = settings.web_threads if settings.introspection else 0
threads = Waits(settings.web_threads, for_provider).threads
timeout = 60
graceful_timeout = 30
# Most load balancers keep an idle connection for a minute. gunicorn has to keep it longer, or it
# may close the connection at the moment when the balancer sends a request on it.
keepalive = 75
control_socket_disable = True
# The application handles X-Forwarded-* (TRUSTED_PROXIES). By default, gunicorn would accept the
# scheme from any client on this host.
forwarded_allow_ips = ""
secure_scheme_headers: dict[str, str] = {}
forwarder_headers = ""

# Without sendfile every answer goes through ClientSocket, which limits the wait for its client.
sendfile = False

# The access log (--access-logfile) has the path only, because the query may hold a sign-in's code
# and the referrer may hold any text.
access_log_format = '%(h)s - - %(t)s "%(m)s %(U)s %(H)s" %(s)s %(b)s "-" "%(a)s"'

# How long gunicorn's main process waits for the metrics server to end.
METRICS_SERVER_SECONDS = 5
# How long a thread may run while another thread waits for the interpreter, for example because the
# database has answered it. Python's default, 5 ms, is as long as several requests take.
TURN_SECONDS = 1e-3


class Log(Logger):  # type: ignore[misc]  # gunicorn ships no types
    """gunicorn's log lines, in the service's format.

    A line about a request that gunicorn could not read or handle omits the request's text, which
    may hold a token.
    """

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        logs.configure(settings)

    def warning(self, msg: str, *args: object, **kwargs: Any) -> None:
        if msg.startswith("Invalid request from "):
            msg = msg.partition(": ")[0]
        super().warning(msg, *args, **kwargs)

    def exception(self, msg: str, *args: object, **kwargs: Any) -> None:
        error = sys.exception()
        if isinstance(error, SilentClientError | CrowdedError):
            self.info("A client was silent for too long")
            return
        if msg.startswith("Socket error") and isinstance(error, OSError):
            # Not a fault of the service. Without a reason, the text might be a part of the request.
            self.warning("A client's connection broke: %s", error.strerror or type(error).__name__)
            return
        if msg.startswith("Error handling request"):
            msg, args = "Error handling a request", ()
        super().exception(msg, *args, **kwargs)


logger_class = Log


def when_ready(server: Any) -> None:
    """Before the first worker: share metrics."""
    if server.cfg.threads > threads:
        server.log.warning(
            "some threads have no connection; set WEB_THREADS, not gunicorn's threads"
        )
    if settings.metrics_bind is not None:
        try:
            server.metrics_folder = metrics_folder.share(settings.metrics_folder)
        except SettingsError as error:
            sys.exit(f"error: {error}")


def pre_fork(server: Any, _worker: Any) -> None:
    """Before each worker: start the metrics server, unless it is running.

    So a metrics server that was killed is restarted with the next worker, for example at a reload.
    """
    running = getattr(server, "metrics_server", None)
    if settings.metrics_bind is None or (running and running.poll() is None):
        return
    if running:
        running.stdin.close()
    words = [*map(str, settings.metrics_bind), str(server.metrics_folder)]
    # S603: the program is this Python, and the address was checked.
    server.metrics_server = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "app.telemetry.metrics_server", *words],
        cwd=ROOT,
        stdin=subprocess.PIPE,
    )


def post_fork(server: Any, _worker: Any) -> None:
    """In a new worker, before it loads the application: start tracing."""
    sys.setswitchinterval(TURN_SECONDS)
    if running := getattr(server, "metrics_server", None):
        # The metrics server ends when its input is closed, so only the main process may keep that
        # pipe open.
        running.stdin.close()
        running.returncode = 0
    try:
        tracing.start(settings, "web")
    except SettingsError as error:
        sys.exit(f"error: {error}")


def post_worker_init(worker: Any) -> None:
    """After the application is loaded: keep it, and tell it when the worker shuts down."""
    # Each time the garbage collector looked through all that is loaded, no request of this process
    # would go on for 90 ms.
    gc.freeze()
    from app.telemetry import metrics  # noqa: PLC0415 - not before metrics_folder.share()

    metrics.describe_process("web")
    if services := _services(worker):
        services.stopping = lambda: not worker.alive
        worker.waits = services.waits


def pre_request(_worker: Any, request: Any) -> None:
    """Before each request: limit the wait for its body, and answer the faults in it."""
    client = request.unreader.sock
    if not isinstance(client, ClientSocket):  # it uses TLS
        return
    length = next((int(value) for name, value in request.headers if name == "CONTENT-LENGTH"), None)
    request.body = RequestBody(request.body, length, client)
    if length is not None and length > settings.max_body_bytes:
        request.force_close()  # its body is not read


def post_request(_worker: Any, request: Any, _environ: Any, _response: Any) -> None:
    """After each request: find out whether its body was read."""
    if isinstance(request.body, RequestBody):
        request.body.finish()


def worker_exit(_server: Any, worker: Any) -> None:
    """Close the worker's database connections, and send its last spans."""
    if services := _services(worker):
        services.database.dispose()
    tracing.stop()


def child_exit(_server: Any, worker: Any) -> None:
    """After a worker has ended: remove it from the metrics of living workers."""
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
