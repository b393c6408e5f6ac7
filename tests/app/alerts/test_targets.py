"""Targets: hostile URLs, addresses, name servers and receivers."""

import socket
import ssl
import threading
import time
from contextlib import contextmanager, suppress
from ipaddress import ip_address, ip_network

import pytest

from app.alerts import targets
from app.alerts.targets import MAX_URL, TargetError, is_allowed, parse_target, post
from tests.support.certificates import make_authority
from tests.support.receivers import receiving

LOCAL = (ip_network("127.0.0.0/8"),)
SOON_SECONDS = 15
PLAIN = ssl.create_default_context()

# Each of these is refused before a name server is asked.
HOSTILE = [
    "http://example.com/",
    "ftp://example.com/",
    "file:///etc/passwd",
    "gopher://example.com:70/_x",
    "//example.com/",
    "example.com",
    "",
    "https://",
    "https:///path",
    "https://127.0.0.1/",
    "https://10.0.0.1/",
    "https://172.16.0.1/",
    "https://192.168.1.1/",
    "https://100.64.0.1/",
    "https://169.254.169.254/latest/meta-data/",
    "https://0.0.0.0/",
    "https://0/",
    "https://224.0.0.1/",
    "https://255.255.255.255/",
    "https://198.18.0.1/",
    "https://2130706433/",  # decimal
    "https://017700000001/",  # octal
    "https://0x7f000001/",  # hexadecimal
    "https://0x7f.1/",
    "https://127.1/",
    "https://127.0.0.1./",
    "https://0177.0.0.1/",
    "https://example.com.1/",
    "https://[::1]/",
    "https://[::]/",
    "https://[::ffff:127.0.0.1]/",  # IPv4-mapped
    "https://[::ffff:7f00:1]/",
    "https://[::127.0.0.1]/",  # IPv4-compatible
    "https://[2002:7f00:1::]/",  # 6to4
    "https://[64:ff9b::7f00:1]/",  # NAT64
    "https://[64:ff9b:1::a00:1]/",
    "https://[2001:0:7f00:1::]/",  # Teredo
    "https://[fe80::1]/",
    "https://[fe80::1%25eth0]/",  # a zone id
    "https://[2606:4700::1111%25eth0]/",
    "https://[fc00::1]/",
    "https://[fd00:ec2::254]/",  # metadata
    "https://[fec0::1]/",
    "https://[ff02::1]/",
    "https://[4000::1]/",  # not in use
    "https://user@example.com/",
    "https://user:password@example.com/",
    "https://example.com@127.0.0.1/",
    "https://example.com:22/",
    "https://example.com:25/",
    "https://example.com:80/",
    "https://example.com:0/",
    "https://example.com:65536/",
    "https://example.com:x/",
    "https://example.com/#fragment",
    "https://example.com\\@127.0.0.1/",
    "https://exam ple.com/",
    "https://example.com/\r\nHost: other",
    "https://example.com/\x00",
    "https://example.com/\u00e9",
    "https://b\u00fccher.example/",
    "https://\uff11\uff12\uff17.0.0.1/",  # full-width digits
    "https://127.0.0.1\u3002/",
    "https://%31%32%37.0.0.1/",
    "https://-example.com/",
    "https://exam..ple.com/",
    "https://.example.com/",
    "https://" + "a" * 64 + ".com/",
    "https://" + "a." * 127 + "com/",
    "https://example.com/" + "a" * MAX_URL,
]
# What a name server may answer for a name that looks harmless.
SPECIAL = [
    *("127.0.0.1", "10.1.2.3", "172.31.255.255", "192.168.0.1", "169.254.169.254", "0.0.0.0"),
    *("100.127.0.1", "224.0.0.1", "240.0.0.1", "192.0.2.1", "::1", "::", "::ffff:10.0.0.1"),
    *("::ffff:8.8.8.8", "2002:808:808::", "64:ff9b::808:808", "fe80::1", "fd00:ec2::254"),
    *("ff02::1", "2001:db8::1", "fe80::1%lo", "not an address"),
]


def send(url, **options):
    return post(url, {}, b"{}", **({"certificates": PLAIN} | options))


@pytest.mark.parametrize("url", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_url_is_refused(url):
    with pytest.raises(TargetError) as refused:
        parse_target(url)
    assert url == "" or url not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("https://example.com", "example.com"),
        ("https://EXAMPLE.com:443/a?b=c", "example.com"),
        ("https://example.com:8443/a", "example.com:8443"),
        ("https://xn--bcher-kva.example/", "xn--bcher-kva.example"),
        ("https://1.1.1.1/", "1.1.1.1"),
        ("https://[2606:4700:4700::1111]:8443/", "[2606:4700:4700::1111]:8443"),
        ("https://hooks_1.example.com./x", "hooks_1.example.com."),
    ],
)
def test_a_usual_url_is_allowed(url, authority):
    assert parse_target(url).authority == authority


@pytest.mark.parametrize("address", SPECIAL)
def test_a_special_address_is_refused_after_resolution(address, monkeypatch):
    """No connection is made."""
    monkeypatch.setattr(targets, "_connected", None)
    with pytest.raises(TargetError):
        send("https://example.com/", resolve=lambda _host, _port: [address])


def test_only_the_checked_address_is_connected_to(monkeypatch):
    """The name is resolved once. Of several addresses only the public ones are used."""
    asked, connected = [], []

    def resolve(host, _port):
        asked.append(host)
        return ["127.0.0.1", "1.1.1.1"] if len(asked) == 1 else ["127.0.0.1"]

    def connect(address, timeout):
        connected.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(TargetError, match="refused"):
        send("https://rebinding.example/", resolve=resolve)
    assert asked == ["rebinding.example"]
    assert connected == [("1.1.1.1", 443)]


def test_networks_of_the_operator_are_allowed():
    """With plain http and every port there, and nowhere else."""
    assert is_allowed(ip_address("127.0.0.1"), LOCAL)
    assert not is_allowed(ip_address("10.0.0.1"), LOCAL)
    with receiving() as receiver:
        assert send(receiver.url, allowed=LOCAL).status == 204
    for url in ("http://public.example/", "https://public.example:25/"):
        with pytest.raises(TargetError, match="not allowed"):
            send(url, allowed=LOCAL, resolve=lambda _host, _port: ["1.1.1.1"])
    with pytest.raises(TargetError):
        send("https://10.0.0.1/", allowed=LOCAL)


def test_the_certificate_must_be_of_the_name(tmp_path):
    """And of a known authority, even where the operator allows the network."""
    authority = make_authority(tmp_path)
    known = ssl.create_default_context(cafile=str(authority.file))
    with receiving(authority.server_context()) as receiver:
        port = receiver.port
        url = f"https://127.0.0.1:{port}/"
        assert send(url, certificates=known, allowed=LOCAL).status == 204
        with pytest.raises(TargetError, match="TLS failed"):
            send(url, allowed=LOCAL)
        with pytest.raises(TargetError, match="TLS failed"):
            send(
                f"https://other.example:{port}/",
                certificates=known,
                allowed=LOCAL,
                resolve=lambda _host, _port: ["127.0.0.1"],
            )
    assert len(receiver.seen) == 1


def test_no_proxy_is_used(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with receiving() as receiver:
        assert send(receiver.url, allowed=LOCAL).status == 204


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status):
    with receiving() as other:
        to = {"Location": other.url}
        with receiving(answer=lambda _received: status, headers=to) as receiver:
            assert send(receiver.url, allowed=LOCAL).status == status
        assert not other.seen


@contextmanager
def raw(answer):
    """A server that handles a connection with a function of it."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.settimeout(5)

    def serve():
        connection, _ = listening.accept()
        with connection:
            connection.recv(65536)
            with suppress(OSError):  # the client is gone
                answer(connection)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    thread.join(5)
    listening.close()


def drip(connection):
    for byte in b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500:
        connection.sendall(bytes([byte]))
        time.sleep(0.02)


def flood(connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    for _ in range(200):
        connection.sendall(b"X: " + b"y" * 1000 + b"\r\n")


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (drip, "timeout"),
        (lambda connection: connection.recv(1), "timeout"),  # until the client has gone
        (flood, "too large"),
        (lambda connection: connection.sendall(b"SSH-2.0-OpenSSH\r\n\r\n"), "not HTTP"),
        (lambda connection: None, "not HTTP"),
    ],
    ids=["drip", "silent", "flood", "ssh", "closed"],
)
def test_a_strange_answer_is_a_failure(answer, problem):
    began = time.monotonic()
    with raw(answer) as url, pytest.raises(TargetError, match=problem):
        send(url, allowed=LOCAL, seconds=0.4)
    assert time.monotonic() - began < SOON_SECONDS


def test_an_endless_body_is_not_read():
    def endless(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65536)

    with raw(endless) as url:
        assert send(url, allowed=LOCAL, seconds=2).status == 200


def test_a_slow_name_server_costs_no_more_than_the_time():
    began, over = time.monotonic(), threading.Event()
    with pytest.raises(TargetError, match="could not be resolved"):
        send("https://example.com/", seconds=0.2, resolve=lambda *_: over.wait(60) and [])
    over.set()
    assert time.monotonic() - began < SOON_SECONDS


def test_retry_after_is_read_in_seconds():
    for text, seconds in (("30", 30), ("soon", None), ("-1", None), ("9" * 20, None)):
        with receiving(answer=lambda _received: 503, headers={"Retry-After": text}) as receiver:
            assert send(receiver.url, allowed=LOCAL) == (503, seconds)
