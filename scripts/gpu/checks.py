"""What a stage does: checks one after the other, each recorded as it ends, none stopping the next."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["Checks", "Skipped", "need_torch_on_gpu"]


class Skipped(Exception):
    """A check, or a stage, that cannot be done here, with the reason."""


class Checks:
    """The checks of a stage, and the figures that they give."""

    def __init__(self, file: Path | None = None) -> None:
        """file : where they are written after each check, so that one that hangs loses nothing."""
        self._file = file
        self.rows: list[dict[str, Any]] = []

    def run(self, name: str, check: Callable[..., Any], *arguments: Any) -> Any:
        """Do a check and record it: `ok`, `failed` or `skipped`, its seconds, and what it returned or why it failed."""
        print(f"-- {name}", flush=True)
        start = time.perf_counter()
        made, state = None, "ok"
        try:
            made = said = check(*arguments)
        except Skipped as reason:
            state, said = "skipped", str(reason)
        except Exception as error:
            traceback.print_exc()
            state, said = "failed", f"{type(error).__name__}: {error}"
        seconds = round(time.perf_counter() - start, 3)
        self.rows.append({"check": name, "state": state, "seconds": seconds, "said": said})
        print(f"   {state} in {seconds} s{'' if said is None else f': {said}'}", flush=True)
        if self._file is not None:
            self._file.write_text(json.dumps(self.rows, default=str, indent=1))
        return made

    @property
    def failed(self) -> int:
        """How many failed."""
        return sum(row["state"] == "failed" for row in self.rows)


def need_torch_on_gpu() -> None:
    """Raises Skipped where PyTorch has no CUDA, or no GPU to run on."""
    import torch

    if not torch.cuda.is_available():
        raise Skipped("this PyTorch has no CUDA")
