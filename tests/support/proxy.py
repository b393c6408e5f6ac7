"""A TCP proxy in front of PostgreSQL that can fall silent, as a broken network does."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy.engine import make_url


class Proxy:
    """Forwards connections to a unix socket, unless it is silent.

    A silent proxy accepts and keeps connections, reads what they send, and forwards nothing.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._speaks = threading.Event()
        self._speaks.set()
        self._forgotten: set[socket.socket] = set()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, url: str) -> str:
        """The URL of a database, through this proxy."""
        through = make_url(url).set(host="127.0.0.1", port=self.port, query={})
        return through.render_as_string(hide_password=False)

    def fall_silent(self) -> None:
        self._speaks.clear()

    def speak(self) -> None:
        """Forward everything again, also what arrived in the meantime."""
        self._speaks.set()

    def forget(self) -> None:
        """Be silent on the present connections for good, as a firewall that lost its state."""
        self._forgotten.update(self._sockets)

    def close(self) -> None:
        for one in (self._listener, *self._sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._speaks.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            server = socket.socket(socket.AF_UNIX)
            server.connect(str(self._target))
            self._sockets += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._forward, args=(source, sink), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._speaks.wait()
                if source not in self._forgotten:
                    sink.sendall(data)
            self._speaks.wait()
            if source not in self._forgotten:
                sink.shutdown(socket.SHUT_WR)


@contextmanager
def proxy_to(url: str) -> Iterator[Proxy]:
    """A proxy to the server of a database's URL, which names the folder of a unix socket."""
    proxy = Proxy(Path(str(make_url(url).query["host"])) / ".s.PGSQL.5432")
    try:
        yield proxy
    finally:
        proxy.close()
