"""How plans are built: what is refused, the batches, and what the manifest holds of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lsx.engines.tensorrt.build_options import BuildOptions
from lsx.errors import UsageError


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"opt_level": 6}, "--opt-level is 6; give 0..5"),
        ({"opt_level": -1}, "--opt-level is -1"),
        ({"aux_streams": 8}, "--aux-streams is 8; give 0..7"),
        ({"workspace": 1000}, "--workspace is 1000 bytes; give at least 1MiB"),
        ({"guidance": "maybe"}, "--guidance is maybe; choose on, off or both"),
    ],
)
def test_what_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as raised:
        BuildOptions(**given)
    assert said in str(raised.value)


def test_the_batches_of_guidance() -> None:
    assert [BuildOptions(guidance=one).batches for one in ("on", "off", "both")] == [(2,), (1,), (2, 1)]


def test_the_manifest_holds_what_shapes_the_plan() -> None:
    options = BuildOptions(workspace=2**30, timing_cache=Path("cache"), hardware_compatible=True, guidance="both")
    assert options.as_text() == {"opt_level": "3", "workspace": "1073741824", "hardware_compatible": "True"}
