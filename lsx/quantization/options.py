"""How recipes are made. Light: wrong options are refused before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal

from lsx.core.tensors import LowPrecision
from lsx.errors import UsageError

__all__ = ["AIMED_COSINES", "METHODS", "MIN_COVERAGE", "Method", "QuantizeOptions"]

Method = Literal["max", "percentile", "mse"]
METHODS: tuple[Method, ...] = ("max", "percentile", "mse")

MIN_COVERAGE = 0.85
"""Lowest share of a target's FLOPs in low precision, unless less is allowed."""
AIMED_COSINES: Mapping[LowPrecision, float] = {"int8": 0.999, "fp8": 0.995}
"""Aims for the U-Net's output, as far as MIN_COVERAGE allows; at int8's threshold itself, 0.995, lips were worse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeOptions:
    """How recipes are made."""

    method: Method | None = None
    """How ranges are found; default percentile for int8, max for fp8, which has no step to save."""
    percentile: float = 99.99
    """Percentile of absolute values, for the method `percentile`."""
    alpha: float = 0.8
    """SmoothQuant's share of the activations, for int8; 0 turns it off."""
    search_budget: int = 400
    """Most forward passes that measure single layers or blocks, a target."""
    keep_fp16: tuple[str, ...] = ()
    """Patterns of layers, by the checkpoint's names, that stay fp16."""
    allow_partial: bool = False
    """Whether less than MIN_COVERAGE may be quantized."""
    unet_cosine: float | None = None
    """Target of the U-Net, which must be reached; default what AIMED_COSINES says where coverage allows, and the
    precision's threshold where it does not."""

    def __post_init__(self) -> None:
        if self.method is not None and self.method not in METHODS:
            raise UsageError(f"method is {self.method}; choose one of {', '.join(METHODS)}")
        if not 50 < self.percentile <= 100:
            raise UsageError(f"percentile is {self.percentile:g}; give a number over 50 and up to 100 (99.99 is usual)")
        if not 0 <= self.alpha < 1:
            raise UsageError(f"alpha is {self.alpha:g}; give a number from 0 (off) to under 1 (0.8 is usual)")
        if isinstance(self.search_budget, bool) or self.search_budget < 1:
            raise UsageError(
                f"search_budget is {self.search_budget}; give a whole number from 1 on (400 measures every layer)"
            )
        if self.unet_cosine is not None and not 0 < self.unet_cosine <= 1:
            raise UsageError(f"unet_cosine is {self.unet_cosine:g}; give a number over 0 and up to 1 (0.995 is usual)")

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the fields that are not as by default."""
        return tuple(field.name for field in fields(self) if getattr(self, field.name) != field.default)
