"""Targets of webhooks: which URLs are allowed, and how a message is posted to one.

The URL of an endpoint is chosen by an organization, and the request is made inside the operator's
network. So the address is checked after the name was resolved, and the connection is made to the
checked address. A name server that answers differently the next time changes nothing. Redirects are
not followed, and no proxy is used.
"""

import http.client
import io
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import NamedTuple
from urllib.parse import urlsplit

from app import __version__

SECONDS = 5.0
MAX_ANSWER_BYTES = 64 * 1024
MAX_URL = 2000
MAX_HOST = 253
_HTTPS, _HTTP = 443, 80
# Ports below are of services of hosts, as SMTP's 25. Their protocols must not be spoken to.
_FIRST_PORT = 1024

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
# What a name server answers, as socket.getaddrinfo() returns it for a name and a port.
Resolver = Callable[[str, int], Sequence[str]]

# Private, local and special addresses (the registries of IANA). IPv6 forms that contain an IPv4
# address are refused as a whole: nobody needs them, and each is a way around the first list.
_REFUSED: tuple[Network, ...] = tuple(
    ip_network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24"),
        *("192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15"),
        *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        *("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48"),
        *("100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16"),
        *("fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"),
    )
)
# The only part of IPv6 that is in use for hosts of the internet.
_GLOBAL_IPV6 = ip_network("2000::/3")
_HOST = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")
# The last label of a name is no number. Otherwise a resolver takes it for an IPv4 address, as
# 2130706433, 0x7f.1 or 127.1 (https://url.spec.whatwg.org/#ends-in-a-number-checker).
_NUMBER = re.compile(r"([0-9]+|0x[0-9a-f]*)")


class TargetError(Exception):
    """A target that is refused, or that could not be reached; the text is for people.

    It repeats no part of the URL, which may hold a secret, and no text of the receiver.
    """


@dataclass(frozen=True)
class Target:
    """The parts of an allowed URL; ``host`` is a name or an address without brackets."""

    scheme: str
    host: str
    port: int
    path: str = field(repr=False)

    @property
    def authority(self) -> str:
        """The host and, unless it is the scheme's own, the port, as a Host header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = _HTTPS if self.scheme == "https" else _HTTP
        return host if self.port == usual else f"{host}:{self.port}"


class Answer(NamedTuple):
    """The status of an answer, and how many seconds it asks to wait."""

    status: int
    retry_after: float | None


def parse_target(url: str, allowed: Sequence[Network] = ()) -> Target:
    """The target of a URL, as far as it can be checked without a name server.

    Args:
        allowed: networks of the operator (``WEBHOOK_ALLOW``). If there are some, plain http and
            any port are possible, and are checked again with the address.

    Raises:
        TargetError: the URL is not allowed.
    """
    if len(url) > MAX_URL:
        raise TargetError(f"must have at most {MAX_URL} characters")
    # Also what programs read in different ways: white space, control characters, backslashes.
    if not re.fullmatch(r"[!-\[\]-~]+", url):
        raise TargetError(
            "must be printable ASCII without spaces and backslashes; write an"
            " international name as xn--"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
        host = parts.hostname or ""
    except ValueError:
        raise TargetError("is not a URL; write https://HOST/PATH") from None
    if parts.scheme != "https" and not (parts.scheme == "http" and allowed):
        raise TargetError("must begin with https://")
    if "@" in parts.netloc:
        raise TargetError("must not contain a user or a password")
    if "#" in url:
        raise TargetError("must not contain a fragment (#)")
    _check_host(host, allowed)
    usual = _HTTPS if parts.scheme == "https" else _HTTP
    port = usual if port is None else port
    if port != usual and port < _FIRST_PORT and not allowed:
        raise TargetError(f"must have the port {_HTTPS}, or one from {_FIRST_PORT}")
    path = parts.path or "/"
    return Target(parts.scheme, host, port, path + (f"?{parts.query}" if parts.query else ""))


def is_allowed(address: Address, allowed: Sequence[Network] = ()) -> bool:
    """Whether a message may be sent to an address."""
    if _is_of_operator(address, allowed):
        return True
    if isinstance(address, IPv6Address) and (address.scope_id or address not in _GLOBAL_IPV6):
        return False
    return not any(address in network for network in _REFUSED)


def post(  # noqa: PLR0913 - a request, and by which rules it is made
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    certificates: ssl.SSLContext,
    allowed: Sequence[Network] = (),
    resolve: Resolver | None = None,
    seconds: float = SECONDS,
) -> Answer:
    """Post a message. All of it takes ``seconds`` at most. The body of the answer is not read.

    Raises:
        TargetError: the target is refused, or there is no answer.
    """
    target = parse_target(url, allowed)
    deadline = time.monotonic() + seconds
    addresses = _resolved(target, resolve or _name_server, deadline)
    usable = [one for one in addresses if _may_connect(target, one, allowed)]
    if not usable:
        raise TargetError("the address is private or not allowed")
    sent = _request(target, headers, body)
    for number, address in enumerate(usable):
        try:
            connected = _connected(target, address, certificates, deadline)
        except ssl.SSLError:
            raise TargetError("TLS failed: the certificate is not valid") from None
        except TimeoutError:
            raise TargetError("timeout") from None
        except OSError:
            if number + 1 == len(usable):
                raise TargetError("the connection was refused or broken") from None
            continue
        with closing(connected):
            return _exchange(connected, sent, deadline)
    raise TargetError("the connection was refused or broken")


def _check_host(host: str, allowed: Sequence[Network]) -> None:
    if ":" in host or "%" in host:
        try:
            address: Address = IPv6Address(host)
        except ValueError:
            raise TargetError("has an invalid address") from None
    elif _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
        try:
            address = IPv4Address(host)
        except ValueError:
            raise TargetError("has an invalid address; write four decimal numbers") from None
    else:
        if len(host) > MAX_HOST or not _HOST.fullmatch(host.removesuffix(".")):
            raise TargetError("has an invalid host name")
        return
    if not is_allowed(address, allowed):
        raise TargetError("has a private or special address")


def _is_of_operator(address: Address, allowed: Sequence[Network]) -> bool:
    return any(address.version == one.version and address in one for one in allowed)


def _may_connect(target: Target, address: Address, allowed: Sequence[Network]) -> bool:
    if target.scheme == "http" or (target.port != _HTTPS and target.port < _FIRST_PORT):
        return _is_of_operator(address, allowed)
    return is_allowed(address, allowed)


def _name_server(host: str, port: int) -> Sequence[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(one[4][0]) for one in found]


def _resolved(target: Target, resolve: Resolver, deadline: float) -> list[Address]:
    """The addresses of a target. A resolver cannot be stopped, so it is left behind if it is slow.

    Raises:
        TargetError: there are none in time.
    """
    found: list[str] = []

    def ask() -> None:
        with suppress(OSError, UnicodeError):
            found.extend(resolve(target.host, target.port))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(max(0.0, deadline - time.monotonic()))
    addresses = []
    for text in dict.fromkeys(found):
        try:
            addresses.append(ip_address(text))
        except ValueError:
            continue
    if not addresses:
        raise TargetError("the name could not be resolved")
    return addresses


def _connected(
    target: Target, address: Address, certificates: ssl.SSLContext, deadline: float
) -> socket.socket:
    """A connection to the checked address; the certificate must be one for the name."""
    connected = socket.create_connection((str(address), target.port), timeout=_left(deadline))
    if target.scheme == "http":
        return connected
    try:
        connected.settimeout(_left(deadline))
        return certificates.wrap_socket(connected, server_hostname=target.host.removesuffix("."))
    except BaseException:
        connected.close()
        raise


def _request(target: Target, headers: Mapping[str, str], body: bytes) -> bytes:
    lines = {
        "Host": target.authority,
        "User-Agent": f"agentidp-analytics/{__version__}",
        "Accept": "*/*",
        "Accept-Encoding": "identity",
        "Connection": "close",
        "Content-Length": str(len(body)),
        **headers,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {target.path} HTTP/1.1\r\n{head}\r\n".encode("ascii") + body


def _exchange(connected: socket.socket, sent: bytes, deadline: float) -> Answer:
    try:
        connected.settimeout(_left(deadline))
        connected.sendall(sent)
        return _answer(b"".join(_head(connected, deadline)))
    except TimeoutError:
        raise TargetError("timeout") from None
    except (OSError, http.client.HTTPException, ValueError):
        raise TargetError("the answer is not HTTP, or the connection broke") from None


def _head(connected: socket.socket, deadline: float) -> Iterator[bytes]:
    """The answer up to the end of its headers.

    A socket's own timeout starts again with each byte, so it is set before each read.

    Raises:
        TargetError: the headers are too large.
    """
    read = b""
    while b"\r\n\r\n" not in read[-MAX_ANSWER_BYTES:]:
        connected.settimeout(_left(deadline))
        part = connected.recv(4096)
        if not part:
            break
        read += part
        yield part
        if len(read) > MAX_ANSWER_BYTES:
            raise TargetError("the answer is too large")


def _answer(head: bytes) -> Answer:
    class Read:
        def makefile(self, _mode: str) -> io.BytesIO:
            return io.BytesIO(head)

    response = http.client.HTTPResponse(Read(), method="POST")  # type: ignore[arg-type]
    response.begin()
    return Answer(response.status, _seconds(response.headers.get("Retry-After")))


def _seconds(text: str | None) -> float | None:
    """The seconds of a Retry-After. Dates are ignored, since few senders use them."""
    text = (text or "").strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
