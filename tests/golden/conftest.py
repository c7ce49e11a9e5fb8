"""What several files of this folder use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lsx.bundle.bundle import Bundle
from lsx.core.tensors import Precision
from tests.planting import copy_of


@pytest.fixture
def own(bundle: Callable[[Precision, int], Bundle], tmp_path: Path) -> Bundle:
    """The fp16 bundle at 64 px, a copy of the test's own; a file may have another of this name."""
    return copy_of(bundle("fp16", 64), tmp_path)
