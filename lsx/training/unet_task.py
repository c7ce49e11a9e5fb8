"""The U-Net's training: LatentSync's stages 1 and 2, and the efficient stage 2."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from torch import Tensor, nn

import lsx
from lsx.core.sampling import SamplingOptions
from lsx.errors import CheckpointError, UsageError
from lsx.metrics.perceptual import Lpips, Trepa
from lsx.metrics.weight_files import LPIPS_FILES, VIDEOMAE_FILE, has_lpips
from lsx.models.checkpoint import Checkpoint, read_tensors
from lsx.models.checkpoint_files import SAMPLING_FILE
from lsx.models.stable_syncnet import STABLE_SYNCNET_FILE, load_syncnet
from lsx.models.unet import UNet3D
from lsx.models.unet_config import UNetConfig
from lsx.training.adapters import add_adapters, merged_state
from lsx.training.config import UNetSettings
from lsx.training.feature_store import LatentStore, TokenStore
from lsx.training.losses import LatentSyncLoss, LossWeights, UNetBatch, UNetDraws
from lsx.training.samples import SampleOptions, UNetSamples, usable_rows
from lsx.training.shards import DataSet
from lsx.training.task import TrainingTask
from lsx.training.validation import ValidationClip

__all__ = ["UNetSources", "UNetTask", "check_resolution", "link_files", "link_parts", "vae_hash"]

_UNET = "latentsync_unet.pt"


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetSources:
    """The sources of a training's networks and data."""

    checkpoint: Checkpoint
    """VAE, audio encoder, mask, and the U-Net to begin with."""
    data: DataSet
    auxiliary: Path | None = None
    """Folder with the weights of LPIPS, VideoMAE and StableSyncNet, those that there are."""
    from_scratch: bool = False
    """Begin with new weights instead of the checkpoint's U-Net."""
    validation: ValidationClip | None = None


class UNetTask(TrainingTask):
    """LatentSync's U-Net under its four losses. Raises UsageError, CheckpointError."""

    module: UNet3D

    def __init__(
        self,
        settings: UNetSettings,
        sources: UNetSources,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> None:
        self.settings, self._sources = settings, sources
        rows = usable_rows(sources.data, settings.resolution)
        self.count = len(rows)
        self._config = self._model_config()
        spec = sources.checkpoint.spec
        check_resolution(spec.resolution, settings.resolution)
        self._hashes = sources.checkpoint.hashes()
        self._rows, self._progress = rows, progress
        self._tokens = TokenStore.of(sources.data, self._hashes["whisper"])
        self.module = self._unet()
        self._loss = self._losses()
        self._latents = (
            LatentStore.of(sources.data, vae_hash(self._hashes), self._loss.mask) if settings.cache_latents else None
        )
        self.samples = UNetSamples(
            sources.data,
            rows,
            self._tokens,
            SampleOptions(
                seed=settings.seed,
                window=spec.audio_window,
                dropout=settings.audio_dropout,
                frames=settings.frames_per_clip,
            ),
            latents=self._latents,
            faces=self._latents is None or self._loss.weights.in_pixels,
            mel=bool(self._loss.weights.sync),
        )
        self.frozen_bytes = self._loss.frozen_bytes

    def prepare(self, rank: int, world: int) -> None:
        self._tokens.fill(
            self._sources.data,
            self._rows[rank::world],
            self._sources.checkpoint.audio_encoder().to(self._device),
            self._progress,
        )
        if self._latents is not None:
            self._latents.fill(
                self._sources.data, self._rows[rank::world], self._loss.vae, self._loss.mask, self._progress
            )

    def _model_config(self) -> UNetConfig:
        """The U-Net's topology: the YAML's where it has a model, which must be the checkpoint's, else that."""
        own = self._sources.checkpoint.unet_config
        if "block_out_channels" not in self.settings.model:
            return own
        wanted = UNetConfig.from_mapping({**self.settings.model, "use_motion_module": True}, "the configuration")
        if wanted != own and not self._sources.from_scratch:
            raise UsageError(
                "the configuration's model is not the checkpoint's. Leave `model:` out, or train --from-scratch"
            )
        return wanted

    def _unet(self) -> UNet3D:
        """The network to begin with, in memory of its own, what is trained requiring gradients."""
        settings = self.settings
        if self._sources.from_scratch:
            torch.manual_seed(settings.seed)
            unet = UNet3D(self._config)
            unet.still_motion()
        else:
            unet = self._sources.checkpoint.unet()
            for parameter in unet.parameters():
                parameter.data = parameter.data.clone()
        self._set_up(unet)
        return unet

    def _set_up(self, unet: UNet3D) -> None:
        """Say what of `unet` is computed, trained and kept. Raises UsageError where nothing is trained."""
        settings = self.settings
        unet.train()
        if not settings.motion:
            unet.leave_out_motion()
        chosen = choose_parameters(unet, settings.trainable, motion=settings.motion)
        if settings.lora_rank is not None:
            add_adapters(unet, settings.trainable or ("",), settings.lora_rank, settings.lora_alpha, settings.seed)
            self.written_as_trained = False
        elif not chosen:
            raise UsageError(f"no parameter's name holds one of {', '.join(settings.trainable)}: nothing to train")
        if settings.gradient_checkpointing:
            unet.checkpoint_gradients()

    def without_memory(self) -> tuple[nn.Module, tuple[Tensor, ...]]:
        count, spec = self.settings.batch_size, self._sources.checkpoint.spec
        with torch.device("meta"):
            unet = UNet3D(self._config)
            self._set_up(unet)
            sample = torch.empty(count, self._config.in_channels, spec.frames, spec.latent, spec.latent)
            audio = torch.empty(count, spec.frames, spec.tokens, spec.audio_dim)
            return unet, (sample, torch.empty(count), audio)

    def _losses(self) -> LatentSyncLoss:
        settings, folder = self.settings, self._sources.auxiliary
        wanted = LossWeights(
            reconstruction=settings.recon_loss_weight,
            sync=settings.sync_loss_weight if settings.pixel_losses and settings.use_syncnet else 0,
            perceptual=settings.perceptual_loss_weight if settings.pixel_losses else 0,
            trepa=settings.trepa_loss_weight if settings.pixel_losses else 0,
        )
        there = {
            "sync": folder is not None and (folder / STABLE_SYNCNET_FILE).is_file(),
            "perceptual": folder is not None and has_lpips(folder),
            "trepa": folder is not None and (folder / VIDEOMAE_FILE).is_file(),
        }
        files = {"sync": STABLE_SYNCNET_FILE, "perceptual": " and ".join(LPIPS_FILES), "trepa": VIDEOMAE_FILE}
        self.left_out = tuple(name for name, found in there.items() if getattr(wanted, name) and not found)
        weights = LossWeights(
            reconstruction=wanted.reconstruction,
            snr_gamma=settings.snr_gamma,
            **{name: getattr(wanted, name) if found else 0.0 for name, found in there.items()},
        )
        used = [name for name in ("reconstruction", *there) if getattr(weights, name)]
        missing = "; ".join(f"{name} (no {files[name]} in --auxiliary)" for name in self.left_out)
        self.notes = (f"losses: {', '.join(used)}{f'. Left out: {missing}' if missing else ''}",)
        return self._networks(weights)

    def _networks(self, weights: LossWeights) -> LatentSyncLoss:
        """The losses over the frozen networks that they need."""
        settings, folder = self.settings, self._sources.auxiliary
        vae = self._sources.checkpoint.vae()
        syncnet = load_syncnet(folder / STABLE_SYNCNET_FILE) if folder is not None and weights.sync else None
        trepa = Trepa(folder) if folder is not None and weights.trepa else None
        if settings.gradient_checkpointing:
            for network in (vae, syncnet, trepa):
                if network is not None:
                    network.checkpoint_gradients()
        return LatentSyncLoss(
            vae,
            torch.from_numpy(self._sources.checkpoint.mask()),
            weights,
            syncnet=syncnet,
            lpips=Lpips(folder) if folder is not None and weights.perceptual else None,
            trepa=trepa,
            alpha=settings.mixed_noise_alpha,
        )

    def to(self, device: torch.device) -> None:
        self._loss.to(device)
        self._device = device

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return self._loss(network, UNetBatch.of(batch), UNetDraws.of(batch)).scalars()

    def write(self, folder: Path, module: nn.Module, step: int) -> None:
        torch.save({"global_step": step, "state_dict": merged_state(module)}, folder / _UNET)
        link_parts(self._sources.checkpoint, folder, self._config, ("vae", "whisper"))
        described = {
            "lsx_version": lsx.__version__,
            "step": step,
            "stage": "with motion modules" if self.settings.motion else "without motion modules",
            "begun_with": None if self._sources.from_scratch else self._hashes["unet"],
            "left_out": list(self.left_out),
            "averaged": self.settings.ema_decay,
            "adapters": self.settings.lora_rank,
        }
        (folder / "training.json").write_text(json.dumps(described, indent=2), encoding="utf-8")

    def load(self, folder: Path) -> None:
        if not self.written_as_trained:
            return  # adapters stand on the weights that the training began with
        state = read_tensors(folder / _UNET).get("state_dict")
        if not isinstance(state, dict):
            raise CheckpointError(f"{folder / _UNET}: no `state_dict` in it")
        with torch.no_grad():
            own = dict(self.module.state_dict())
            if own.keys() != state.keys():
                raise CheckpointError(f"{folder / _UNET}: of another U-Net than the configuration's")
            for key, value in own.items():
                value.copy_(state[key])

    def validate(self, checkpoint: Path, output: Path, step: int) -> Mapping[str, float]:
        del step
        if self._sources.validation is None:
            return {}
        sampling = SamplingOptions(
            steps=self.settings.inference_steps, guidance=self.settings.guidance, cache_interval=None, seed=0
        )
        return self._sources.validation.render(checkpoint, output, sampling)


def check_resolution(checkpoint: int, configuration: int) -> None:
    """Refuse a checkpoint of another resolution than the configuration's. Raises UsageError."""
    if checkpoint != configuration:
        raise UsageError(
            f"the checkpoint is of {checkpoint} px, the configuration says {configuration}. "
            "Give a checkpoint and a configuration of one resolution"
        )


def vae_hash(hashes: Mapping[str, str]) -> str:
    """One hash of all files of the VAE."""
    return hashlib.sha256("".join(v for k, v in sorted(hashes.items()) if k.startswith("vae/")).encode()).hexdigest()


def choose_parameters(unet: UNet3D, parts: tuple[str, ...], *, motion: bool) -> list[str]:
    """Let the parameters whose name holds one of `parts` be trained, all where there are none, and no others.

    Without `motion`, motion modules are never trained. Returns the names.
    """
    chosen = []
    for name, parameter in unet.named_parameters():
        wanted = not parts or any(part in name for part in parts)
        trained = wanted and (motion or "motion_modules." not in name)
        parameter.requires_grad_(trained)
        chosen += [name] if trained else []
    return chosen


_PLACES = {"unet": _UNET, "vae": "vae", "whisper": "whisper/tiny.pt", "sampling": SAMPLING_FILE}


def link_parts(checkpoint: Checkpoint, folder: Path, unet: UNetConfig, parts: tuple[str, ...]) -> None:
    """Put these parts of a checkpoint into another's folder, its mask if it has one, and config.yaml of a `unet`."""
    for part in parts:
        source = getattr(checkpoint.files, part)
        if source is not None:
            link_files(source, folder / _PLACES[part])
    if checkpoint.mask_file is not None:
        link_files(checkpoint.mask_file, folder / "mask.png")
    spec = checkpoint.spec
    data = {
        "num_frames": spec.frames,
        "resolution": spec.resolution,
        "audio_feat_length": list(spec.audio_window),
        "video_fps": spec.video_fps,
        "audio_sample_rate": spec.sample_rate,
    }
    content = {"data": checkpoint.yaml.get("data", data), "model": unet.as_mapping()}
    (folder / "config.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def link_files(source: Path, target: Path) -> None:
    """The same file or folder under another name without its bytes anew, or a copy where that cannot be."""
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
        for entry in sorted(source.iterdir()):
            link_files(entry, target / entry.name)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
