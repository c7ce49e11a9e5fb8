"""lsx's command line, from a script."""

from __future__ import annotations

import os
import subprocess
import sys

__all__ = ["lsx", "lsx_in_processes"]


def lsx(*arguments: str) -> None:
    """Run the command line as a user would, and show what was typed."""
    print("$ lsx", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "lsx", *arguments], check=True)  # noqa: S603


def lsx_in_processes(*arguments: str, processes: int) -> None:
    """Run a training command in so many processes on one machine, one thread each, and show what was typed."""
    launch = ["--standalone", f"--nproc-per-node={processes}", "-m", "lsx", *arguments]
    print("$ torchrun", *launch, flush=True)
    command = [sys.executable, "-m", "torch.distributed.run", *launch]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})  # noqa: S603
