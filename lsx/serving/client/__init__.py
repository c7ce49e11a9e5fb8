"""A client of `lsx serve` for Python, with and without asyncio. Needs httpx: the extra `client`."""

from __future__ import annotations

from importlib.util import find_spec

from lsx.errors import MissingDependency

if find_spec("httpx") is None:
    raise MissingDependency.of("httpx", "client")

from lsx.serving.client.asynchronous import AsyncClient
from lsx.serving.client.synchronous import Client

__all__ = ["AsyncClient", "Client"]
