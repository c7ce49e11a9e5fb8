"""A small decoder in the VAE's place: it learns to draw what the full one draws, most of all where the model paints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lsx.errors import CheckpointError, UsageError
from lsx.metrics.images import levels_of, psnr
from lsx.metrics.perceptual import Lpips
from lsx.metrics.weight_files import LPIPS_FILES, has_lpips
from lsx.models.checkpoint import Checkpoint, read_safetensors
from lsx.models.vae import VAE_WEIGHTS, Vae, VaeConfig, write_vae
from lsx.training.feature_store import LatentStore
from lsx.training.samples import LatentSamples, usable_rows
from lsx.training.shards import DataSet
from lsx.training.task import TrainingTask
from lsx.training.unet_task import UNetSources, check_resolution, link_parts, vae_hash

if TYPE_CHECKING:
    from lsx.training.config import UNetSettings

__all__ = ["DecoderTask", "SmallDecoder", "decoder_flops", "small_config"]

_OUTSIDE = 0.05
"""Weight of a pixel that is not painted, beside 1 of one that is: what is not painted comes from the video."""
_JUDGED = 64  # frames that a checkpoint is judged on


def small_config(full: VaeConfig, widths: tuple[int, ...] | None, layers: int | None) -> VaeConfig:
    """The VAE with a decoder of these channels and layers a block; half the channels and a layer less unless given.

    Raises UsageError.
    """
    try:
        return replace(
            full,
            decoder_block_out_channels=widths or tuple(width // 2 for width in full.decoder_widths),
            decoder_layers_per_block=max(full.decoder_layers - 1, 0) if layers is None else layers,
        )
    except ValueError as error:
        raise UsageError(f"--widths, --layers: {error}") from error


def decoder_flops(config: VaeConfig, side: int) -> int:
    """FLOPs of one frame's decode, of latents of side x side."""
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        Vae(config).decode(torch.empty(1, 4, side, side))
    return int(counter.get_total_flops())


class SmallDecoder(nn.Module):
    """The part of a VAE that draws: latents [n, 4, h, w], not scaled, to pixels [n, 3, 8 h, 8 w]."""

    def __init__(self, vae: Vae) -> None:
        super().__init__()
        self.post_quant_conv, self.decoder = vae.post_quant_conv, vae.decoder

    def forward(self, latents: Tensor) -> Tensor:
        out: Tensor = self.decoder(self.post_quant_conv(latents))
        return out


class DecoderTask(TrainingTask):
    """A small decoder under its distance from the full one. Raises UsageError, CheckpointError."""

    module: SmallDecoder

    def __init__(
        self,
        settings: UNetSettings,
        sources: UNetSources,
        config: VaeConfig,
        *,
        held_out: DataSet | None = None,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> None:
        """sources : the checkpoint whose decoder is to become small; config : of the VAE that it becomes."""
        self.settings, self._checkpoint, self._config = settings, sources.checkpoint, config
        check_resolution(sources.checkpoint.spec.resolution, settings.resolution)
        self._rows, self._progress = usable_rows(sources.data, settings.resolution), progress
        self.count = len(self._rows)
        self._data, self._held_out = sources.data, held_out or sources.data
        self._judged = usable_rows(self._held_out, settings.resolution)[:_JUDGED]
        self._mask = torch.from_numpy(sources.checkpoint.mask())
        self._vae = sources.checkpoint.vae()
        self.hashes = sources.checkpoint.hashes()
        """SHA-256 of every file of the checkpoint."""
        vae = vae_hash(self.hashes)
        self._store, self._judged_store = (LatentStore.of(d, vae, self._mask) for d in (self._data, self._held_out))
        self.samples = LatentSamples(self._rows, self._store, settings.seed)
        torch.manual_seed(settings.seed)
        self.module = self._small()
        folder = sources.auxiliary
        judges = folder is not None and has_lpips(folder) and settings.perceptual_loss_weight
        self._lpips = Lpips(folder) if folder is not None and judges else None
        self.frozen_bytes = sum(p.numel() * p.element_size() for p in self._vae.parameters())
        self.notes = self._notes()
        self.psnr: float | None = None
        """What `validate` found last."""

    def _small(self) -> SmallDecoder:
        module = SmallDecoder(Vae(self._config))
        module.decoder.checkpointing = self.settings.gradient_checkpointing
        return module

    def _notes(self) -> tuple[str, ...]:
        side = self._checkpoint.spec.latent
        small, full = (decoder_flops(config, side) for config in (self._config, self._vae.config))
        asked = self.settings.perceptual_loss_weight and self._lpips is None
        left_out = f". Left out: perceptual (no {' and '.join(LPIPS_FILES)} in --auxiliary)" if asked else ""
        widths = ", ".join(str(width) for width in self._config.decoder_widths)
        return (
            f"decoder of {widths} channels: {100 * small / full:.1f} % of the FLOPs of the one that it learns from",
            f"losses: reconstruction{'' if self._lpips is None else ', perceptual'}{left_out}",
        )

    def prepare(self, rank: int, world: int) -> None:
        self._store.fill(self._data, self._rows[rank::world], self._vae, self._mask, self._progress)
        self._judged_store.fill(self._held_out, self._judged[rank::world], self._vae, self._mask)

    def without_memory(self) -> tuple[nn.Module, tuple[Tensor, ...]]:
        side = self._checkpoint.spec.latent
        with torch.device("meta"):
            return self._small(), (torch.empty(self.settings.batch_size, 4, side, side),)

    def to(self, device: torch.device) -> None:
        self._vae.to(device)
        self._mask = self._mask.to(device)
        if self._lpips is not None:
            self._lpips.to(device)

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        latents = batch["latents"]
        with torch.no_grad(), torch.autocast(latents.device.type, enabled=False):
            wanted = self._vae.decode(latents.float())
        drawn = network(latents).float()
        weight = torch.where(self._mask < 0.5, 1.0, _OUTSIDE)
        reconstruction = ((drawn - wanted).square() * weight).mean() / weight.mean()
        losses = {"total": reconstruction, "reconstruction": reconstruction.detach()}
        if self._lpips is not None:
            painted = (self._mask < 0.5).to(drawn.dtype)
            perceptual = self._lpips.loss(drawn * painted, wanted * painted)
            losses["total"] = reconstruction + self.settings.perceptual_loss_weight * perceptual
            losses["perceptual"] = perceptual.detach()
        return losses

    def write(self, folder: Path, module: nn.Module, step: int) -> None:
        """The checkpoint that it was made of, with the small decoder in its VAE."""
        del step
        link_parts(self._checkpoint, folder, self._checkpoint.unet_config, ("unet", "whisper", "sampling"))
        kept = {name: value for name, value in self._vae.state_dict().items() if not name.startswith(_DRAWN)}
        write_vae(folder / "vae", self._config, kept | module.state_dict())

    def load(self, folder: Path) -> None:
        file = folder / "vae" / VAE_WEIGHTS[0]
        state = {name: value for name, value in read_safetensors(file).items() if name.startswith(_DRAWN)}
        try:
            self.module.load_state_dict(state)
        except RuntimeError as error:
            raise CheckpointError(f"{file}: of another decoder than --widths and --layers make") from error

    @torch.no_grad()
    def validate(self, checkpoint: Path, output: Path, step: int) -> Mapping[str, float]:
        """PSNR in dB of the painted pixels, against the full decoder's, over frames that were not trained on."""
        del output, step
        small = Checkpoint(replace(self._checkpoint.files, vae=checkpoint / "vae")).vae().to(self._mask.device)
        pairs, rows, inside = [], self._judged, (self._mask < 0.5).cpu().numpy()
        for number in range(_JUDGED):
            row = rows[number % len(rows)]
            frame = (7 * number) % row.frames
            latents = self._judged_store.moments(row.key, range(frame, frame + 1), masked=False)[:, :4].to(
                self._mask.device
            )
            pairs.append([_levels(vae.decode(latents)) for vae in (small, self._vae)])
        drawn, wanted = (np.concatenate(faces) for faces in zip(*pairs, strict=True))
        self.psnr = psnr(drawn, wanted, inside)
        return {"psnr": self.psnr}


def _levels(pixels: Tensor) -> NDArray[np.uint8]:
    return levels_of((pixels.permute(0, 2, 3, 1).cpu().numpy() + 1) * 127.5)


_DRAWN = ("post_quant_conv.", "decoder.")
