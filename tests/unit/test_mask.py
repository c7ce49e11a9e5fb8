"""The mask: the released raster, drawn from the outline that the package holds."""

from __future__ import annotations

import hashlib

import numpy as np

from lsx.models.mask import mask_at, mask_raster

RELEASED = "f8b78274914708ee3b64f800d9c4571b00906863af5df049240c708ee33ef869"


def test_the_raster_is_the_released_one_to_the_bit() -> None:
    raster = mask_raster()
    assert raster.shape == (256, 256)
    assert raster.dtype == np.uint8
    assert hashlib.sha256(raster.tobytes()).hexdigest() == RELEASED


def test_another_size_has_soft_edges() -> None:
    assert {0.0, 1.0} == set(mask_at(mask_raster(), 256).ravel().tolist())
    larger = mask_at(mask_raster(), 512)
    assert larger.shape == (512, 512)
    assert ((larger > 0) & (larger < 1)).any()
