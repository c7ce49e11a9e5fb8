"""Addresses that users name: nothing but public hosts, whatever their names lead to."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

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


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "192.168.0.1", "fe80::1", "fd00::1", "100.64.0.1"])
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
            if self.path == "/large":
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"x" * 5000)
                return
            self.send_response(302)
            self.send_header("Location", "http://169.254.169.254/")
            self.end_headers()

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
