"""Addresses that users name: nothing but public hosts, whatever their names lead to."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from lsx.serving import outside
from lsx.serving.outside import AddressRefused, check_url, opened, pieces
from tests.serving.served import listening


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/a",
        "https://example.com:8443/a",
        "https://me:pw@example.com/a",
        "https://127.0.0.1/a",
        "https://[::1]/a",
        "https://[::ffff:127.0.0.1]/a",
        "https://169.254.169.254/latest/meta-data",
        "https://10.0.0.1/",
        "https://224.0.0.1/",
        "https://0.0.0.0/",
        "file:///etc/passwd",
        "ftp://example.com/a",
        "https://",
        "https://[broken",
        "https://other.example/a",
        "https://example.com/\u00fc.mp4",
        "https://ex\u00e4mple.com/a",
        "https://example.com/a b",
        "https://example.com/a\r\nHost: b",
        f"https://{'a' * 70}.com/",
        "https://a..com/",
    ],
)
def test_what_is_refused(url: str) -> None:
    hosts = {
        "example.com",
        "127.0.0.1",
        "::1",
        "::ffff:127.0.0.1",
        "169.254.169.254",
        "10.0.0.1",
        "224.0.0.1",
        "0.0.0.0",  # noqa: S104
    }
    with pytest.raises(AddressRefused):
        check_url(url, allowed=hosts)


def test_what_is_allowed() -> None:
    assert check_url("https://example.com/a?b=1", allowed={"example.com"}).hostname == "example.com"
    assert check_url("https://example.com/a", allowed=None).hostname == "example.com"
    assert check_url("http://127.0.0.1:9/a", allowed=None, private=("127.0.0.1",)).port == 9


_INSIDE = ("127.0.0.1", "10.1.2.3", "192.168.0.1", "fe80::1", "fd00::1", "100.64.0.1", "fec0::1", "::127.0.0.1")
_IPV4_INSIDE_IPV6 = ("64:ff9b::a00:1", "64:ff9b::7f00:1", "2002:7f00:1::", "2002:0a00:0001::1", "::ffff:10.0.0.1")


def test_ipv6_that_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """A native address, and a public IPv4 one as a network without IPv4 writes it."""
    found = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", (a, 443)) for a in ("2606:2800:220:1::1", "64:ff9b::808:808")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr(socket, "create_connection", lambda *_: (_ for _ in ()).throw(ConnectionRefusedError))
    with pytest.raises(ConnectionRefusedError), opened("GET", check_url("https://example.com/", allowed=None)):
        pass


@pytest.mark.parametrize("address", [*_INSIDE, *_IPV4_INSIDE_IPV6])
def test_a_name_that_leads_inside(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Also where one of several addresses is private: a DNS server may give them in any order."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, 443)) for each in ("93.184.216.34", address)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    parts = check_url("https://example.com/a", allowed=None)
    with pytest.raises(AddressRefused, match="public"), opened("GET", parts):
        pass


def test_the_address_that_was_checked_is_the_one_that_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is looked up once: a second answer cannot lead elsewhere."""
    asked: list[Any] = []
    answers = iter([[(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", 443))]])
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: next(answers))

    def connect(address: Any, *_: Any) -> Any:
        asked.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(ConnectionRefusedError), opened("GET", check_url("https://example.com/", allowed=None)):
        pass
    assert asked == [("93.184.216.34", 443)]


@pytest.fixture
def redirecting() -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/dripping":
                self.connection.settimeout(0.05)
                self.wfile.write(b"HTTP/1.1 200 OK\r\n")
                while not self._is_gone():
                    self.wfile.write(b"X-Drip: 1\r\n")
                return
            if self.path in ("/large", "/endless"):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"x" * 5000)
                while self.path == "/endless" and self.connection.recv(1):
                    pass
                return
            self.send_response(302)
            self.send_header("Location", "http://169.254.169.254/")
            self.end_headers()

        def _is_gone(self) -> bool:
            """Whether the other side ended, after a twentieth of a second."""
            try:
                return not self.connection.recv(1)
            except TimeoutError:
                return False

        def log_message(self, *_: Any) -> None: ...

    with listening(Handler) as port:
        yield port


def test_redirects_are_not_followed(redirecting: int) -> None:
    private = ("127.0.0.1",)
    parts = check_url(f"http://127.0.0.1:{redirecting}/", allowed=None, private=private)
    with opened("GET", parts, private=private) as response:
        assert response.status == 302


def test_no_more_is_read_than_is_taken(redirecting: int) -> None:
    private = ("127.0.0.1",)
    parts = check_url(f"http://127.0.0.1:{redirecting}/large", allowed=None, private=private)
    with opened("GET", parts, private=private) as response, pytest.raises(AddressRefused, match="1000 bytes"):
        list(pieces(response, 1000, 300))


def test_a_receiver_that_drips_is_cut_off(redirecting: int) -> None:
    """Each byte comes in time, and all of them never do."""
    private = ("127.0.0.1",)
    parts = check_url(f"http://127.0.0.1:{redirecting}/dripping", allowed=None, private=private)
    with pytest.raises((OSError, HTTPException)), opened("GET", parts, longest=0.5, private=private):
        pass


def test_a_body_that_was_cut_off_is_no_end(redirecting: int) -> None:
    private = ("127.0.0.1",)
    parts = check_url(f"http://127.0.0.1:{redirecting}/endless", allowed=None, private=private)
    with pytest.raises(TimeoutError, match="more than"), opened("GET", parts, longest=0.5, private=private) as response:
        list(pieces(response, 1 << 30, 100))


def test_a_connection_that_comes_too_late_is_not_used(redirecting: int, monkeypatch: pytest.MonkeyPatch) -> None:
    connect, cut, late = socket.create_connection, outside._Connection.cut, threading.Event()

    def slow(*arguments: Any) -> socket.socket:
        link = connect(*arguments)
        assert late.wait(60)
        return link

    def told(connection: Any) -> None:
        cut(connection)
        late.set()

    monkeypatch.setattr(socket, "create_connection", slow)
    monkeypatch.setattr(outside._Connection, "cut", told)
    private = ("127.0.0.1",)
    parts = check_url(f"http://127.0.0.1:{redirecting}/dripping", allowed=None, private=private)
    with pytest.raises(TimeoutError, match="no connection"), opened("GET", parts, longest=0.01, private=private):
        pass
