"""Noise of training: the schedule, the mixed noise, and Min-SNR's weights, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lsx.training.diffusion import NoiseSchedule, mixed_noise
from lsx.training.losses import LatentSyncLoss, LossWeights, UNetBatch, UNetDraws

SHARES = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
STEPS = np.array([0, 81, 481, 951, 999])


def test_noise_is_added_by_the_samplers_betas_and_taken_away_again() -> None:
    schedule = NoiseSchedule.of_sampler()
    torch.manual_seed(0)
    clean, noise = torch.randn(5, 4, 2, 3, 3), torch.randn(5, 4, 2, 3, 3)
    noisy = schedule.add_noise(clean, noise, torch.from_numpy(STEPS))
    share = SHARES[STEPS].reshape(5, 1, 1, 1, 1)
    wanted = share**0.5 * clean.numpy() + (1 - share) ** 0.5 * noise.numpy()
    np.testing.assert_allclose(noisy.numpy(), wanted, atol=1e-5)
    again = schedule.clean_estimate(noisy, noise, torch.from_numpy(STEPS))
    np.testing.assert_allclose(again.numpy(), clean.numpy(), atol=2e-5)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_mixed_noise_is_of_unit_variance_and_shares_what_alpha_says(alpha: float) -> None:
    torch.manual_seed(0)
    noise = mixed_noise(torch.randn(1, 4, 1, 64, 64), torch.randn(1, 4, 8, 64, 64), alpha)[0].flatten(2)
    covariance = np.cov(noise.transpose(0, 1).flatten(1).numpy())
    shared = alpha**2 / (1 + alpha**2)
    np.testing.assert_allclose(covariance, shared + (1 - shared) * np.eye(8), atol=0.05)


@pytest.mark.parametrize("gamma", [0.05, 1.0, 5.0])
def test_min_snr_weighs_little_noise_by_the_signal_that_is_left(gamma: float) -> None:
    ratio = SHARES / (1 - SHARES)
    weights = NoiseSchedule.of_sampler().min_snr_weights(torch.arange(1000), gamma)
    np.testing.assert_allclose(weights.numpy(), np.minimum(ratio, gamma) / ratio, rtol=1e-3)


def test_the_reconstruction_is_weighed_clip_by_clip() -> None:
    torch.manual_seed(0)
    side = 4
    vae: Any = torch.nn.Identity()  # the moments are there: nothing is encoded
    moments = torch.randn(2, 3, 16, 8, side, side).abs()
    batch = UNetBatch(audio=torch.zeros(2, 16, 50, 384), mel=torch.zeros(2, 1, 80, 52), moments=moments)
    draws = UNetDraws(
        timesteps=torch.tensor([81, 951]),
        shared=torch.randn(2, 4, 1, side, side),
        independent=torch.randn(2, 4, 16, side, side),
        **{name: torch.randn(32, 4, side, side) for name in ("target", "masked", "reference")},
    )
    losses = {
        gamma: LatentSyncLoss(
            vae, torch.ones(8 * side, 8 * side), LossWeights(sync=0, perceptual=0, trepa=0, snr_gamma=gamma)
        )
        for gamma in (None, 0.2)
    }
    _, _, noise = losses[None].inputs(batch, draws)
    predicted = torch.randn_like(noise)
    errors = np.square(predicted.numpy() - noise.numpy()).mean(axis=(1, 2, 3, 4))
    ratio = SHARES[[81, 951]] / (1 - SHARES[[81, 951]])
    wanted = {None: errors.mean(), 0.2: (np.minimum(ratio, 0.2) / ratio * errors).mean()}
    for gamma, loss in losses.items():
        terms = loss(lambda *_: (predicted, predicted), batch, draws)
        assert terms.total.item() == pytest.approx(wanted[gamma], rel=1e-4)
        assert terms.reconstruction.item() == pytest.approx(wanted[gamma], rel=1e-4)
