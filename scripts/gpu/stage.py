"""One stage, in a process of its own."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from scripts.gpu.checks import Checks
from scripts.gpu.stages import STAGES

__all__ = ["Settings", "main"]


@dataclass(frozen=True)
class Settings:
    """What the stages are told."""

    folder: Path
    """For what they make: checkpoints, bundles, reports."""
    size: str
    resolutions: tuple[int, ...]


def main(arguments: list[str] | None = None) -> int:
    """Returns the number of checks that failed, at most 1."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=[stage.name for stage in STAGES])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", default="full")
    parser.add_argument("--resolutions", default="256,512")
    given = parser.parse_args(arguments)
    stage = next(one for one in STAGES if one.name == given.name)
    resolutions = tuple(int(n) for n in given.resolutions.split(","))
    checks = Checks(given.folder / f"{stage.number}-{stage.name}.json")
    import_module(f"scripts.gpu.{stage.name}").run(checks, Settings(given.folder, given.size, resolutions))
    return min(checks.failed, 1)


if __name__ == "__main__":
    sys.exit(main())
