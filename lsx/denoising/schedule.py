"""The schedule of a chunk as plain data: which U-Net at which time step, and the scheduler's coefficients.

Every sampler here is linear in (latents, noise, previous), so its coefficients are computed once, in float64:
latents' = c0 latents + c1 noise + c2 previous, previous' = c3 latents + c4 noise (`step` graph).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lsx.core.sampling import Sampler, SamplingOptions

__all__ = ["IDENTITY", "Step", "ddim_coefficients", "ddim_levels", "dpm_coefficients", "schedule", "timesteps"]

IDENTITY = np.array([1, 0, 0, 0, 0], dtype=np.float32)
"""Coefficients that leave the latents alone: with them `step` makes the first forward's input."""

_TRAINED = 1000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step:
    """One denoising step."""

    graph: str
    """`unet`, or `unet_shallow` on the features of the last full one (DeepCache)."""
    timestep: NDArray[np.float32]
    """float32 [1]."""
    coefficients: NDArray[np.float32]
    """float32 [5]."""


def timesteps(steps: int, sampler: Sampler = "ddim") -> NDArray[np.int64]:
    """Leading spacing with offset 1, highest first: 951, 901, ..., 1 for 20 steps of DDIM.

    diffusers' DPM-Solver++ divides by one step more, and leaves out the last: 941, 894, ..., 48. Trailing spacing
    begins where the latents are noise and nothing else: 999, 949, ..., 49. Source: arXiv 2305.08891.
    """
    if sampler == "ddim-trailing":
        return np.round(_TRAINED - np.arange(steps) * (_TRAINED / steps)).astype(np.int64) - 1
    if sampler == "ddim":
        return (np.arange(steps) * (_TRAINED // steps))[::-1] + 1
    return (np.arange(1, steps + 1) * (_TRAINED // (steps + 1)))[::-1] + 1


def _alphas_cumprod() -> NDArray[np.float64]:
    # The original keeps its betas in float32, and the products of a thousand of them differ in the fifth digit.
    betas = np.linspace(np.float32(0.00085**0.5), np.float32(0.012**0.5), _TRAINED, dtype=np.float32) ** 2
    return np.asarray(np.cumprod(1 - betas.astype(np.float64)), dtype=np.float64)


def ddim_levels(steps: int, sampler: Sampler = "ddim") -> NDArray[np.float64]:
    """The clean signal's share of the power before and after each step of DDIM: float64 [steps, 2]."""
    alphas = _alphas_cumprod()
    times = timesteps(steps, sampler)
    # After the last step alpha is alphas_cumprod[0], not 1.
    back = times - _TRAINED // steps
    there = np.where(back >= 0, alphas[np.maximum(back, 0)], alphas[0])
    return np.stack([alphas[np.minimum(times, _TRAINED - 1)], there], axis=1)


def ddim_coefficients(steps: int, sampler: Sampler = "ddim") -> NDArray[np.float64]:
    """DDIM, eta 0, epsilon prediction, in either spacing: float64 [steps, 5]. `previous` is the clean estimate x0."""
    here, there = ddim_levels(steps, sampler).T
    to_clean = 1 / np.sqrt(here)
    noise_to_clean = -np.sqrt(1 - here) / np.sqrt(here)
    return np.stack(
        [
            np.sqrt(there) * to_clean,
            np.sqrt(there) * noise_to_clean + np.sqrt(1 - there),
            np.zeros(steps),
            to_clean,
            noise_to_clean,
        ],
        axis=1,
    )


def dpm_coefficients(steps: int) -> NDArray[np.float64]:
    """DPM-Solver++ 2M (midpoint), epsilon prediction: float64 [steps, 5]. `previous` is the last clean estimate x0.

    The first step is of first order, having no previous one, and so is the last, which ends at sigma 0.
    Source: arXiv 2211.01095, algorithm 2.
    """
    alphas = _alphas_cumprod()[timesteps(steps, "dpm++2m")]
    scale, sigma = np.sqrt(alphas), np.sqrt(1 - alphas)
    half_log_snr = np.log(scale / sigma)
    rows = []
    for index in range(steps):
        clean = np.array([1 / scale[index], -sigma[index] / scale[index]])  # x0 of (latents, noise)
        if index == steps - 1:
            share, gain, older = 0.0, 1.0, 0.0
        else:
            advance = half_log_snr[index + 1] - half_log_snr[index]
            share = sigma[index + 1] / sigma[index]
            gain = -scale[index + 1] * np.expm1(-advance)
            ratio = (half_log_snr[index] - half_log_snr[index - 1]) / advance if index else np.inf
            older = -gain / (2 * ratio)
            gain -= older
        rows.append([share + gain * clean[0], gain * clean[1], older, clean[0], clean[1]])
    return np.array(rows, dtype=np.float64)


def schedule(options: SamplingOptions) -> list[Step]:
    """All steps of a chunk, in order."""
    steps, sampler = options.steps, options.sampler
    table = dpm_coefficients(steps) if sampler == "dpm++2m" else ddim_coefficients(steps, sampler)
    coefficients = table.astype(np.float32)
    times = timesteps(steps, sampler)
    interval = options.cache_interval or 1
    return [
        Step(
            graph="unet" if index % interval == 0 else "unet_shallow",
            timestep=np.array([time], dtype=np.float32),
            coefficients=row,
        )
        for index, (time, row) in enumerate(zip(times, coefficients, strict=True))
    ]
