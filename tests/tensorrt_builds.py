"""What the tests of TensorRT's builds share."""

from __future__ import annotations

from lsx.core.tensors import Precision
from lsx.engines.tensorrt.build_options import BuildOptions

RESOLUTIONS: dict[Precision, int] = {"fp32": 64, "fp16": 256, "bf16": 64}
"""Of the bundles that are built: at 256 px the released topology, at 64 px one of few layers."""
FAST = BuildOptions(opt_level=0)
