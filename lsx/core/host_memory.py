"""The memory of this machine, or of the container that this process runs in."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

__all__ = ["available_bytes"]

_GROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def available_bytes(root: Path = Path("/")) -> int | None:
    """Bytes that can be taken without swapping, by the system and by a container's limit; None where nothing tells.

    root : where /proc and /sys are.
    """
    found: list[int] = []
    with suppress(OSError, KeyError, ValueError):
        lines = dict(line.split(":", 1) for line in (root / "proc/meminfo").read_text().splitlines() if ":" in line)
        found.append(1024 * int(lines["MemAvailable"].split()[0]))
    for limit, used in _GROUPS:
        with suppress(OSError, ValueError):  # `max` is no limit
            found.append(int(_read(root, limit)) - int(_read(root, used)))
    return max(min(found), 0) if found else None


def _read(root: Path, path: str) -> str:
    return (root / path.lstrip("/")).read_text().strip()
