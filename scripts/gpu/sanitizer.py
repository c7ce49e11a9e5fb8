"""Stage 4: compute-sanitizer over stage 2, and over a chunk of the small bundle, where the tool is there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from scripts.gpu.checks import Checks, Skipped
from scripts.gpu.stage import Settings

__all__ = ["run"]

_PLACES = ("/usr/local/cuda/bin/compute-sanitizer", "/usr/local/cuda/compute-sanitizer/compute-sanitizer")


def run(checks: Checks, settings: Settings) -> None:
    """All of stage 4."""
    for tool in ("memcheck", "initcheck"):
        checks.run(f"{tool} of the device", _sanitized, tool, settings.folder)


def _sanitized(tool: str, folder: Path) -> str:
    sanitizer = shutil.which("compute-sanitizer") or next((p for p in _PLACES if Path(p).is_file()), None)
    if sanitizer is None:
        raise Skipped("compute-sanitizer is not on this machine; it comes with the CUDA toolkit")
    inner = folder / "sanitizer"
    inner.mkdir(exist_ok=True)
    command = [sanitizer, "--tool", tool, "--error-exitcode", "17", sys.executable, "-m", "scripts.gpu.stage", "device"]
    done = subprocess.run(  # noqa: S603
        [*command, str(inner)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, env=os.environ
    )
    print(done.stdout)
    found = re.search(r"ERROR SUMMARY: (\d+) error", done.stdout)
    # The stage's own exit code is 1 where the sanitizer's memory, some of it, "did not come back"; stage 2 judges that.
    if found is None or int(found[1]) or done.returncode not in (0, 1):
        raise RuntimeError(f"{found[0] if found else 'no summary'}, exit code {done.returncode}")
    return found[0]
