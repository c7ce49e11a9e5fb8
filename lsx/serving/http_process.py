"""The HTTP process: uvicorn, with the settings on standard input."""

from __future__ import annotations

import socket
import sys

import uvicorn

from lsx.errors import UsageError
from lsx.serving.http_app import create_app
from lsx.serving.listening import bound
from lsx.serving.logs import log_to_stderr, logger
from lsx.serving.processes import given_settings, named
from lsx.serving.settings import ServeSettings

__all__ = ["main"]

_DRAIN_SECONDS, _BACKLOG = 5, 2048
_SWITCH_SECONDS = 0.0005
"""Python's default, 5 ms, is how long a thread that comes back from the database may wait for one that computes."""


def main() -> int:
    """Serve until SIGTERM."""
    settings = given_settings()
    sys.setswitchinterval(_SWITCH_SECONDS)
    log_to_stderr(settings.log_level, process="http", machine=settings.machine)
    with named(settings, "http"):
        try:
            listening = bound(settings.host, settings.port)
        except UsageError as error:
            logger().error("cannot listen", host=settings.host, port=settings.port, error=str(error))
            return 3
        _serve(settings, listening)
    return 0


def _serve(settings: ServeSettings, listening: socket.socket) -> None:
    with listening:
        config = uvicorn.Config(
            create_app(settings),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_DRAIN_SECONDS,
        )
        listening.listen(_BACKLOG)  # what comes before the server is up waits
        logger().info("listening", host=settings.host, port=listening.getsockname()[1])
        uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    sys.exit(main())
