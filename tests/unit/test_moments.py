"""Conditioning from kept moments: by hand, and bit for bit the VAE encoder's graph's own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from lsx.bundle.bundle import Bundle
from lsx.core.noise import named_noise
from lsx.core.tensors import Precision
from lsx.denoising.moments import conditioning_of
from lsx.engines.loading import load_engine


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("seed", range(3))
def test_the_conditioning_is_the_graphs_own(
    bundle: Callable[[Precision, int], Bundle], precision: Precision, seed: int
) -> None:
    """Bit for bit: moments with one noise, sampled here with another."""
    opened = bundle(precision, 64)
    faces = np.random.default_rng(seed).integers(0, 256, (4, 64, 64, 3), np.uint8)
    noise = named_noise("avatar.noise", (2, 4, 4, 8, 8), seed)
    with load_engine(opened, "vae_encoder", threads=1) as engine:
        wanted = engine.infer({"faces": faces, "noise": noise})["conditioning"]
        other = engine.infer({"faces": faces, "noise": np.zeros_like(noise)})
    sampled = conditioning_of(other["moments"], noise, other["conditioning"][0, 0, 0])
    assert sampled.shape == (1, 9, 4, 8, 8)
    if precision == "fp16":
        sampled = sampled.astype(np.float16).astype(np.float32)
    assert np.array_equal(sampled, wanted)


def test_the_conditioning_by_hand() -> None:
    """Number by number: the mask, and of masked and reference face (mean + deviation x noise) x 0.18215."""
    frames, side = 3, 2
    random = np.random.default_rng(0)
    moments = random.standard_normal((frames, 2, 2, 4, side, side)).astype(np.float32)
    noise = random.standard_normal((2, frames, 4, side, side)).astype(np.float32)
    mask = np.array([[0, 0.25], [0.5, 1]], np.float32)
    made = conditioning_of(moments, noise, mask)
    assert made.shape == (1, 9, frames, side, side)
    assert made.dtype == np.float32
    for frame, y, x in np.ndindex(frames, side, side):
        assert made[0, 0, frame, y, x] == mask[y, x]
        for kind, channel in np.ndindex(2, 4):
            mean, deviation = (float(moments[frame, kind, part, channel, y, x]) for part in (0, 1))
            wanted = (mean + deviation * float(noise[kind, frame, channel, y, x])) * 0.18215
            assert made[0, 1 + 4 * kind + channel, frame, y, x] == pytest.approx(wanted, abs=1e-6)
