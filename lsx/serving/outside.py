"""Requests to addresses that a user named: to public hosts alone, to the very address that was checked."""

from __future__ import annotations

import http.client
import ipaddress
import re
import socket
import ssl
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import SplitResult, urlsplit

__all__ = ["AddressRefused", "check_url", "opened", "split_url"]

_SENT = re.compile(r"[!-~]+")
_NAME = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # the last four bytes are an IPv4 address
_GLOBAL = ipaddress.ip_network("2000::/3")
_6TO4 = ipaddress.ip_network("2002::/16")


class AddressRefused(Exception):
    """A URL to which nothing is sent, and why."""


def split_url(url: str) -> SplitResult:
    """A URL that can be sent as it is, taken apart. Raises AddressRefused."""
    if not _SENT.fullmatch(url):
        raise AddressRefused("write what is no ASCII in it with % and two digits, and a host's name as xn--")
    try:
        parts = urlsplit(url)
        _ = parts.port  # read here, where what is no number is told
    except ValueError as error:
        raise AddressRefused("it is no URL") from error
    host = parts.hostname or ""
    if host and not _NAME.fullmatch(host) and ":" not in host:
        raise AddressRefused("its host has no name that there can be")
    return parts


def check_url(url: str, *, allowed: Collection[str] | None, private: Collection[str] = ()) -> SplitResult:
    """A URL that may be asked, taken apart: https on port 443, without user and password.

    allowed : the hosts that may be asked; None are all. private : hosts that may be asked wherever they are, over http
    and any port too. Raises AddressRefused. Where the host's name leads is seen when it is opened.
    """
    parts = split_url(url)
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host:
        raise AddressRefused("give an https:// URL")
    if parts.username is not None or parts.password is not None:
        raise AddressRefused("leave user and password out of it")
    if host in private:
        return parts
    if parts.scheme != "https" or parts.port not in (None, 443):
        raise AddressRefused("give an https:// URL, on port 443")
    if allowed is not None and host not in allowed:
        raise AddressRefused(f"{host} is none of the hosts that this server may ask")
    _check_address(host, literal=True)
    return parts


def _check_address(text: str, *, literal: bool = False) -> None:
    """Raise AddressRefused for an address that is not public; literal : names are none."""
    try:
        address: Any = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        if literal:
            return
        raise AddressRefused("its host has no address") from None
    if getattr(address, "ipv4_mapped", None) is not None:
        address = address.ipv4_mapped
    if address.version == 6 and address in _NAT64:
        address = ipaddress.IPv4Address(address.packed[-4:])
    if not address.is_global or address.is_multicast or (address.version == 6 and not _is_native(address)):
        raise AddressRefused("its host is not a public one")


def _is_native(address: ipaddress.IPv6Address) -> bool:
    """Whether an IPv6 address holds no IPv4 address, to which a router would pass it on."""
    return address in _GLOBAL and address not in _6TO4


def _addresses(host: str, port: int, *, private: bool) -> list[str]:
    """Where a host's name leads; all must be public. Raises AddressRefused, OSError where it is not found."""
    addresses = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if not private:
        for address in addresses:
            _check_address(address)
    return addresses


class _Connection(http.client.HTTPConnection):
    """To an address that was checked, under the host's own name."""

    def __init__(self, host: str, port: int, address: str, timeout: float, tls: ssl.SSLContext | None) -> None:
        super().__init__(host, port, timeout=timeout)
        self._address, self._tls = address, tls
        self._link: socket.socket | None = None  # `sock` is None as soon as the answer is the last on it
        self.was_cut = False

    def connect(self) -> None:
        self.sock = self._link = socket.create_connection((self._address, self.port), self.timeout)
        if self._tls is not None:
            self.sock = self._link = self._tls.wrap_socket(
                self.sock, server_hostname=self.host, do_handshake_on_connect=False
            )
        if self.was_cut:  # before there was what could be cut
            raise TimeoutError("no connection in time")
        if isinstance(self._link, ssl.SSLSocket):
            self._link.do_handshake()

    def cut(self) -> None:
        """End it from another thread, whatever it waits for."""
        self.was_cut = True
        if self._link is not None:
            with suppress(OSError):
                socket.socket.shutdown(self._link, socket.SHUT_RDWR)


@contextmanager
def opened(
    method: str,
    parts: SplitResult,
    *,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 15.0,
    longest: float = 15.0,
    private: Collection[str] = (),
) -> Iterator[http.client.HTTPResponse]:
    """Ask what `check_url` let pass. Redirects are not followed.

    timeout : seconds without a byte. longest : seconds for all of it, the block too. Raises AddressRefused, OSError,
    HTTPException.
    """
    host = parts.hostname or ""
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    address = _addresses(host, port, private=host in private)[0]
    connection = _Connection(host, port, address, timeout, ssl.create_default_context() if secure else None)
    late = threading.Timer(longest, connection.cut)
    late.daemon = True
    late.start()
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request(method, target, body, dict(headers or {}))
        yield connection.getresponse()
        if connection.was_cut:  # which may look like an end
            raise TimeoutError(f"it took more than {longest:.0f} s")
    finally:
        late.cancel()
        connection.close()


def pieces(response: http.client.HTTPResponse, most: int, size: int = 1 << 20) -> Iterator[bytes]:
    """What comes, in pieces. Raises AddressRefused beyond `most` bytes."""
    taken = 0
    while piece := response.read(size):
        taken += len(piece)
        if taken > most:
            raise AddressRefused(f"it has more than {most} bytes")
        yield piece
