"""A process for the supervisor's tests: it writes down its starts, and ends with a code where a file says so."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

from lsx.serving.processes import REPLACED, given_settings


def main() -> int:
    """Under the name in the first argument: `code` in the data folder is its end, `drained` what SIGTERM leaves."""
    settings, name = given_settings(), sys.argv[1]

    def drained(_number: int, _frame: FrameType | None) -> None:
        signal.sigtimedwait([signal.SIGUSR1], 0.5)
        (settings.data / "drained").touch()
        os._exit(0)

    signal.signal(signal.SIGTERM, drained)
    with (settings.data / "starts").open("a") as file:
        file.write(f"{name} {os.getpid()} {os.environ.get(REPLACED, '-')}\n")
    code = settings.data / "code"
    if code.exists():
        return int(code.read_text())
    (settings.data / "lives").touch()
    while True:
        signal.pause()


if __name__ == "__main__":
    sys.exit(main())
