"""What the tests of TensorRT's builds share."""

from __future__ import annotations

from lsx.core.tensors import Precision
from lsx.engines.tensorrt.build_options import BuildOptions

RESOLUTIONS: dict[Precision, int] = {"fp32": 128, "fp16": 256, "bf16": 64}
FAST = BuildOptions(opt_level=0)
