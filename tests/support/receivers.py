"""Receivers of webhooks and of e-mail on this host, and an independent check of signatures."""

import base64
import hashlib
import hmac
import json
import random
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Received:
    """One request: its headers in lower case, and its body."""

    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Receiver:
    """A local server that keeps what it gets.

    ``answer``: the status for a request, and further headers. ``slow``: seconds before it answers.
    """

    port: int
    answer: Callable[[Received], int] = lambda _received: 204
    headers: dict[str, str] = field(default_factory=dict)
    slow: float = 0.0
    seen: list[Received] = field(default_factory=list)
    accepted: list[Received] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"


@contextmanager
def receiving(tls: ssl.SSLContext | None = None, **options: Any) -> Iterator[Receiver]:
    """A receiver, while it is open."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received = Received({name.lower(): text for name, text in self.headers.items()}, body)
            with lock:
                receiver.seen.append(received)
            if receiver.slow:
                time.sleep(receiver.slow)
            status = receiver.answer(received)
            if 200 <= status < 300:
                with lock:
                    receiver.accepted.append(received)
            self.send_response(status)
            for name, text in receiver.headers.items():
                self.send_header(name, text)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_arguments: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 50

        def handle_error(self, *_arguments: Any) -> None:
            pass  # a sender was killed

    lock = threading.Lock()
    with Server(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        receiver = Receiver(server.server_address[1], **options)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()


def half(seed: int = 0) -> Callable[[Received], int]:
    """Fails half of the requests."""
    dice = random.Random(seed)
    return lambda _received: 500 if dice.random() < 0.5 else 200


def verified(secret: str, received: Received, *, now: float | None = None) -> bool:
    """Whether a request is signed, by the text of the specification of Standard Webhooks.

    Written without the code of the service. The example of the specification checks it itself.
    """
    key = base64.b64decode(secret[len("whsec_") :])
    timestamp = received.headers["webhook-timestamp"]
    if abs((time.time() if now is None else now) - int(timestamp)) > 300:
        return False
    content = f"{received.id}.{timestamp}.".encode() + received.body
    expected = hmac.new(key, content, hashlib.sha256).digest()
    for entry in received.headers["webhook-signature"].split():
        version, _, signature = entry.partition(",")
        if version == "v1" and hmac.compare_digest(base64.b64decode(signature), expected):
            return True
    return False


@dataclass
class MailServer:
    """A local SMTP server that keeps what it gets: sender, recipient and message."""

    port: int
    refuses: bool = False
    mails: list[tuple[str, str, bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}?starttls=0"


@contextmanager
def receiving_mail(*, refuses: bool = False) -> Iterator[MailServer]:  # noqa: C901 - a protocol
    """An SMTP server of the few commands that a sender needs (RFC 5321)."""

    class Handler(socketserver.StreamRequestHandler):
        def say(self, line: str) -> None:
            self.wfile.write(f"{line}\r\n".encode())

        def handle(self) -> None:
            sender = recipient = ""
            self.say("220 local")
            for line in iter(self.rfile.readline, b""):
                command = line.decode().strip()
                verb = command[:4].upper()
                if verb == "MAIL":
                    sender = command[10:].split(">")[0].lstrip("<")
                elif verb == "RCPT":
                    recipient = command[8:].split(">")[0].lstrip("<")
                    if server.refuses:
                        self.say("550 no such user")
                        continue
                elif verb == "DATA":
                    self.say("354 go on")
                    lines = list(iter(self.rfile.readline, b".\r\n"))
                    text = b"".join(one[1:] if one.startswith(b"..") else one for one in lines)
                    server.mails.append((sender, recipient, text))
                elif verb == "QUIT":
                    self.say("221 bye")
                    return
                self.say("250 local" if verb == "EHLO" else "250 ok")

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as listening:
        server = MailServer(listening.server_address[1], refuses)
        thread = threading.Thread(target=listening.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown()
            thread.join()
