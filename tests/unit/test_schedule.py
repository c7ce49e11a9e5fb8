"""The schedule's coefficients against diffusers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lsx.core.noise import named_noise
from lsx.core.sampling import SAMPLERS, Sampler, SamplingOptions
from lsx.denoising.schedule import schedule, timesteps
from lsx.errors import UsageError
from lsx.models.reference import scheduler


# with 499 and 998 trailing steps, diffusers' sums of fractions come to a step more, -1
@pytest.mark.parametrize(
    ("sampler", "steps"),
    [(s, n) for s in SAMPLERS for n in (1, 2, 3, 4, 7, 8, 10, 20, 50, 499, 998) if s != "ddim-trailing" or n < 499],
)
def test_a_sampler_equals_diffusers(sampler: Sampler, steps: int) -> None:
    theirs = scheduler(sampler)
    theirs.set_timesteps(steps)
    assert timesteps(steps, sampler).tolist() == theirs.timesteps.tolist()
    latents = named_noise("latents", (1, 4, 2, 3, 3), 0)
    previous = np.zeros_like(latents)
    wanted = torch.from_numpy(latents)
    for index, step in enumerate(schedule(SamplingOptions(steps=steps, sampler=sampler))):
        noise = named_noise(f"noise{index}", latents.shape, 0)
        c = step.coefficients
        latents, previous = c[0] * latents + c[1] * noise + c[2] * previous, c[3] * latents + c[4] * noise
        wanted = theirs.step(torch.from_numpy(noise), theirs.timesteps[index], wanted).prev_sample
    assert np.abs(latents - wanted.numpy()).max() <= 1e-5 * np.abs(wanted.numpy()).max()


def test_trailing_steps_go_from_the_noisiest_one_down() -> None:
    for steps in range(1, 1001):
        times = timesteps(steps, "ddim-trailing")
        assert (len(times), times[0]) == (steps, 999)
        assert np.abs(times - (999 - np.arange(steps) * 1000 / steps)).max() <= 0.5


def test_deep_cache_runs_the_whole_unet_every_third_step() -> None:
    steps = schedule(SamplingOptions(steps=8, cache_interval=3))
    full = [i for i, step in enumerate(steps) if step.graph == "unet"]
    assert full == [0, 3, 6]
    assert all(step.graph == "unet" for step in schedule(SamplingOptions(steps=8, cache_interval=None)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("steps", 1001),
        ("guidance", float("nan")),
        ("guidance", 0.5),
        ("seed", -1),
        ("cache_interval", 0),
        ("sampler", "euler"),
    ],
)
def test_options_outside_their_range(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=f"{name} is"):
        SamplingOptions(**{name: value})  # type: ignore[arg-type]


def test_dpm_has_no_999_steps() -> None:
    with pytest.raises(UsageError, match="at most 998"):
        SamplingOptions(steps=999, sampler="dpm++2m")
