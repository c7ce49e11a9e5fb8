"""The address that the HTTP process listens on."""

from __future__ import annotations

import errno
import socket

from lsx.errors import UsageError

__all__ = ["bound"]

_LOWEST_FREE_TO_ALL = 1024


def bound(host: str, port: int) -> socket.socket:
    """A socket that has the address, and does not listen yet; of several such, one may.

    Raises UsageError for an address that is not this machine's, or that another program listens on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
    except OSError as error:
        made.close()
        raise UsageError(_reason(host, port, error)) from error
    return made


def _reason(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is taken; end what listens there, or give another --port"
    if error.errno == errno.EACCES:
        return f"port {port} may not be taken by this user; give a --port from {_LOWEST_FREE_TO_ALL} on"
    return f"--host {host} is no address of this machine ({error.strerror}); give one of its own, or 0.0.0.0 for all"
