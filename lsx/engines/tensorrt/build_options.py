"""How plans are built: what `lsx build` is asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from lsx.bundle.bundle import Bundle
from lsx.errors import UsageError

__all__ = ["BuildOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """How plans are built."""

    opt_level: int = 3
    """Builder optimisation level, 0..5: higher builds longer for faster plans. TensorRT's own default is 3."""
    workspace: int | None = None
    """Most bytes of scratch memory that a tactic may take; None for all of the GPU's."""
    aux_streams: int | None = None
    """Most auxiliary streams, 0..7; None lets TensorRT choose."""
    timing_cache: Path | None = None
    """File of measured tactics, read and written; only on a GPU."""
    version_compatible: bool = False
    """Plans that later versions of the library load too. They carry code: lsx loads them only when told to trust it."""
    hardware_compatible: bool = False
    """Plans for every GPU from compute capability 8.0 on (tensorrt only), at some cost in speed."""
    guidance: Literal["on", "off", "both"] | None = None
    """Batches of the U-Net to build for: 2 (on), 1 (off), or two profiles (both); None for the bundle's own: off for
    a student, else on."""

    def __post_init__(self) -> None:
        if not 0 <= self.opt_level <= 5:
            raise UsageError(f"--opt-level is {self.opt_level}; give 0..5 (3 is usual)")
        if self.aux_streams is not None and not 0 <= self.aux_streams <= 7:
            raise UsageError(f"--aux-streams is {self.aux_streams}; give 0..7")
        if self.workspace is not None and self.workspace < 2**20:
            raise UsageError(f"--workspace is {self.workspace} bytes; give at least 1MiB, as in 4GiB")
        if self.guidance not in ("on", "off", "both", None):
            raise UsageError(f"--guidance is {self.guidance}; choose on, off or both")

    def of_bundle(self, bundle: Bundle) -> BuildOptions:
        """The same, with the bundle's own guidance where none was chosen."""
        own: Literal["on", "off"] = "on" if bundle.sampling.guidance_batch == 2 else "off"
        return self if self.guidance is not None else replace(self, guidance=own)

    @property
    def batches(self) -> tuple[int, ...]:
        """Lengths of axis `b`, one for each profile."""
        return {"on": (2,), "off": (1,), "both": (2, 1)}[self.guidance or "on"]

    def as_text(self) -> dict[str, str]:
        """Return what the manifest holds of them: what shapes the plan, and not what only speeds up its building."""
        named = {
            "opt_level": self.opt_level,
            "workspace": self.workspace,
            "aux_streams": self.aux_streams,
            "version_compatible": self.version_compatible,
            "hardware_compatible": self.hardware_compatible,
        }
        return {name: str(value) for name, value in named.items() if value is not None and value is not False}
