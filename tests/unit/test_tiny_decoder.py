"""lsx-tiny's decoder, trained on with its U-Net's estimates: it draws them better, and the encoder stays."""

from __future__ import annotations

from pathlib import Path

import torch

from examples.tiny.checkpoint import tiny_checkpoint
from examples.tiny.dataset import fill_tokens
from examples.tiny.decoder import adapt_decoder, estimates
from examples.tiny.vae import pixel_weight
from lsx.models.checkpoint import Checkpoint
from lsx.models.checkpoint_files import CheckpointFiles
from lsx.models.reference import LATENT_SCALE
from lsx.models.vae import Vae
from lsx.training.feature_store import TokenStore
from tests.training_data import tiny_data


def test_it_draws_the_estimates_better(tmp_path: Path) -> None:
    data = tiny_data(tmp_path / "data", resolution=128, seeds=range(2), frames=48)
    checkpoint = Checkpoint(CheckpointFiles.in_folder(tiny_checkpoint(tmp_path / "checkpoint")))
    fill_tokens(data, TokenStore.of(data, checkpoint.hashes()["whisper"]), checkpoint.audio_encoder())
    seen = estimates(checkpoint, data, 1)
    assert seen.latents.shape == (16, 4, 16, 16)
    assert seen.faces.shape == (16, 3, 128, 128)

    def error(vae: Vae) -> float:
        with torch.no_grad():
            drawn = vae.decode(seen.latents / LATENT_SCALE) - (seen.faces / 127.5 - 1)
            return float((drawn.square() * pixel_weight(128)).mean())

    vae = checkpoint.vae()
    before, encoder = error(vae), {name: value.clone() for name, value in vae.encoder.state_dict().items()}
    # noise it is not: what the U-Net makes of a sound at these levels is near what was there
    assert before < 0.05
    adapted = adapt_decoder(vae, seen, 10, batch=4)
    assert error(adapted) < 0.97 * before
    assert all(torch.equal(value, encoder[name]) for name, value in adapted.encoder.state_dict().items())
    assert not any(parameter.requires_grad for parameter in adapted.parameters())
