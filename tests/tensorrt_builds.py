"""What the tests of TensorRT's builds share."""

from __future__ import annotations

import shutil
from pathlib import Path

from lsx.bundle.bundle import Bundle
from lsx.core.tensors import Precision
from lsx.engines.tensorrt.build_options import BuildOptions

RESOLUTIONS: dict[Precision, int] = {"fp32": 128, "fp16": 256, "bf16": 64}
FAST = BuildOptions(opt_level=0)


def copy_of(bundle: Bundle, folder: Path) -> Bundle:
    """A bundle of the test's own."""
    return Bundle.open(shutil.copytree(bundle.path, folder / "bundle"))
