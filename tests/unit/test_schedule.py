"""The schedule's coefficients against diffusers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lsx.errors import UsageError
from lsx.models.reference import scheduler
from lsx.runtime.schedule import schedule, timesteps
from lsx.seeded import normal
from lsx.specs import SampleOptions


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 20, 50, 999])
def test_ddim_equals_diffusers(steps: int) -> None:
    theirs = scheduler()
    theirs.set_timesteps(steps)
    assert timesteps(steps).tolist() == theirs.timesteps.tolist()
    latents = normal("latents", (1, 4, 2, 3, 3), 0)
    wanted = torch.from_numpy(latents)
    for index, step in enumerate(schedule(SampleOptions(steps=steps))):
        noise = normal(f"noise{index}", latents.shape, 0)
        c = step.coefficients
        latents = c[0] * latents + c[1] * noise
        wanted = theirs.step(torch.from_numpy(noise), theirs.timesteps[index], wanted).prev_sample
    assert np.abs(latents - wanted.numpy()).max() <= 1e-5 * np.abs(wanted.numpy()).max()


def test_deep_cache_runs_the_whole_unet_every_third_step() -> None:
    steps = schedule(SampleOptions(steps=8, cache_interval=3))
    full = [i for i, step in enumerate(steps) if step.graph == "unet"]
    assert full == [0, 3, 6]
    assert all(step.graph == "unet" for step in schedule(SampleOptions(steps=8, cache_interval=None)))


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", 0), ("steps", 1001), ("guidance", float("nan")), ("guidance", 0.5), ("seed", -1), ("cache_interval", 0)],
)
def test_options_outside_their_range(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"{name} is"):
        SampleOptions(**{name: value})  # type: ignore[arg-type]
