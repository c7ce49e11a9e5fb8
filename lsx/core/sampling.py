"""How latents are denoised: what a user chooses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypedDict

from lsx.core.keywords import named_alone
from lsx.errors import UsageError

__all__ = ["MAX_SEED", "SAMPLERS", "Sampler", "SamplingKeywords", "SamplingOptions"]

Sampler = Literal["ddim", "dpm++2m", "ddim-trailing"]


SAMPLERS: tuple[Sampler, ...] = ("ddim", "dpm++2m", "ddim-trailing")


MAX_SEED = 2**63 - 1


@named_alone
@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingOptions:
    """How the latents of every chunk are denoised. Raises UsageError for a value out of its range.

    Examples
    --------
    >>> SamplingOptions(steps=4, cache_interval="off").cache_interval is None
    True
    """

    steps: int = 20
    """Denoising steps, 1..1000; LatentSync's users run 20 to 50."""
    guidance: float = 1.5
    """Guidance scale, 1..20; 1 turns guidance off and halves the batch."""
    cache_interval: int | None = 3
    """DeepCache: a full U-Net every this many steps (1..1000); None or "off" turns it off. 3 is the
    released script's."""
    seed: int = 0
    """Seed of every noise array, 0..2**63-1."""
    sampler: Sampler = "ddim"
    """`ddim`, which the model was released with; `dpm++2m` (DPM-Solver++ 2M), which needs about half the steps;
    `ddim-trailing`, whose steps are counted from the noisiest one, 999, down, for 1 to 4 of them."""

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise UsageError(f"sampler is {self.sampler}; choose one of {', '.join(SAMPLERS)}")
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or not 1 <= self.steps <= 1000:
            raise UsageError(f"steps is {self.steps!r}; give a whole number in 1..1000 (20 is usual)")
        if self.sampler == "dpm++2m" and self.steps > 998:
            raise UsageError(f"steps is {self.steps!r}; dpm++2m takes at most 998 (10 is usual)")
        interval: object = self.cache_interval
        if interval == "off":
            object.__setattr__(self, "cache_interval", None)
        if (
            isinstance(self.guidance, bool)
            or not isinstance(self.guidance, int | float)
            or not math.isfinite(self.guidance)
            or not 1 <= self.guidance <= 20
        ):
            raise UsageError(f"guidance is {self.guidance!r}; give a number in 1..20 (1.5 is usual, 1 is off)")
        interval = self.cache_interval
        if interval is not None and (
            isinstance(interval, bool) or not isinstance(interval, int) or not 1 <= interval <= 1000
        ):
            raise UsageError(f"cache_interval is {interval!r}; give a whole number in 1..1000, or off")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed <= MAX_SEED:
            raise UsageError(f"seed is {self.seed!r}; give a whole number in 0..{MAX_SEED}")

    @property
    def guidance_batch(self) -> int:
        """Batch of a U-Net forward: 2 with guidance, 1 without."""
        return 2 if self.guidance > 1 else 1


class SamplingKeywords(TypedDict, total=False):
    """SamplingOptions' fields as keywords."""

    steps: int
    guidance: float
    cache_interval: int | Literal["off"] | None
    seed: int
    sampler: Sampler
