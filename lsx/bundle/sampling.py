"""How a bundle is to be sampled: what was chosen, and for the rest what the bundle itself says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lsx.bundle.bundle import Bundle
from lsx.core.keywords import options_of
from lsx.core.sampling import SamplingOptions

__all__ = ["sampling_of"]


def sampling_of(
    bundle: Bundle, options: SamplingOptions | None, keywords: Mapping[str, Any], name: str
) -> SamplingOptions:
    """`options`, or the bundle's own, with the fields in `keywords` replaced.

    name : the options' parameter, for messages. Raises UsageError, also for what a student was not made for.
    """
    chosen = options_of(SamplingOptions, options, keywords, name, bundle.sampling)
    bundle.check_sampling(chosen)
    return chosen
