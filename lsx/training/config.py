"""Training configurations: the original's YAML files, read as they are, and what lsx adds to them.

Every value is checked here, before anything heavy is loaded. A name that nothing reads is refused, so that a misspelt
learning rate is not a default; names that only the original's own file layout needs are passed over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import yaml

from lsx.errors import UsageError

_T = TypeVar("_T", bound="Settings")

__all__ = ["MixedPrecision", "Settings", "SyncNetSettings", "UNetSettings", "read_settings", "read_yaml"]

MixedPrecision = Literal["no", "fp16", "bf16"]
LRScheduler = Literal["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"]
"""diffusers' names."""

_PASSED_OVER = {
    "data.train_output_dir": "-o",
    "data.train_fileslist": "--data",
    "data.train_data_dir": "--data",
    "data.val_fileslist": "--validation",
    "data.val_data_dir": "--validation",
    "data.val_video_path": "--validation-video",
    "data.val_audio_path": "--validation-audio",
    "data.audio_embeds_cache_dir": "",
    "data.audio_mel_cache_dir": "",
    "data.syncnet_config_path": "--syncnet",
    "data.mask_image_path": "the checkpoint's mask",
    "data.latent_space": "",
    "ckpt.inference_ckpt_path": "",
    "ckpt.resume_ckpt_path": "--checkpoint",
    "optimizer.scale_lr": "",
}
"""The original's names that lsx takes from elsewhere, or that have one meaning here, and where from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What both trainings have. The defaults are the original's."""

    batch_size: int = 1
    """Clips of a process in one forward."""
    gradient_accumulation_steps: int = 1
    """Forwards of one step."""
    workers: int = 0
    """Processes that read the data; 0 reads in the training process."""
    lr: float = 1e-5
    lr_scheduler: LRScheduler = "constant"
    """All but the constant ones end at `max_train_steps`."""
    lr_warmup_steps: int = 0
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    max_train_steps: int = 10_000_000
    max_train_epochs: int = -1
    """Passes over the data; -1 for as many as the steps take."""
    mixed_precision: MixedPrecision = "fp16"
    """A CPU has no fp16, and takes float32 instead."""
    seed: int = 1247
    save_steps: int = 10_000
    """A checkpoint every so many steps, and one at the end."""
    validation_steps: int = 10_000
    keep_states: int = 2
    """Checkpoints that keep what `--resume` needs; older ones keep their weights."""
    frames: int = 16
    resolution: int = 256
    ema_decay: float | None = None
    """Average the weights with this decay, and save the average."""
    compile: bool = False
    """Compile the network with torch.compile."""
    gradient_checkpointing: bool = True
    max_skipped_steps: int = 10
    """Steps whose numbers are not finite before the run stops."""

    def __post_init__(self) -> None:
        whole = ("batch_size", "gradient_accumulation_steps", "max_train_steps", "save_steps", "validation_steps")
        for name in (*whole, "keep_states", "max_skipped_steps"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; give 1 or more")
        if self.lr_scheduler not in get_args(LRScheduler):
            raise UsageError(f"lr_scheduler is {self.lr_scheduler}; choose one of {', '.join(get_args(LRScheduler))}")
        for name in ("lr", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} is {getattr(self, name)}; give a number over 0")
        if self.frames != 16:
            raise UsageError(f"num_frames is {self.frames}; LatentSync is trained with 16")
        if self.resolution < 64 or self.resolution % 64:
            raise UsageError(f"resolution is {self.resolution}; give a multiple of 64 pixels")
        if self.mixed_precision not in get_args(MixedPrecision):
            raise UsageError(
                f"mixed_precision is {self.mixed_precision}; choose one of {', '.join(get_args(MixedPrecision))}"
            )
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise UsageError(f"ema_decay is {self.ema_decay}; give a number between 0 and 1, such as 0.999")
        if self.workers < 0 or self.seed < 0 or self.lr_warmup_steps < 0:
            raise UsageError("num_workers, seed and lr_warmup_steps are 0 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetSettings(Settings):
    """The U-Net's training, one stage."""

    model: Mapping[str, Any] = field(default_factory=dict)
    """The `model:` section, empty where the checkpoint's own is taken."""
    motion: bool = True
    """Whether the motion modules are there: stage 1 trains without them."""
    trainable: tuple[str, ...] = ()
    """Parameters whose name holds one of these are trained; none given: all that are computed."""
    recon_loss_weight: float = 1.0
    sync_loss_weight: float = 0.05
    perceptual_loss_weight: float = 0.1
    trepa_loss_weight: float = 10.0
    pixel_losses: bool = True
    use_syncnet: bool = True
    mixed_noise_alpha: float | None = 1.0
    """Ratio of shared to independent noise; None for one noise that all frames share."""
    cache_latents: bool = False
    """Encode every frame once and keep mean and deviation of its latents beside the data: 64 KiB a frame at 256 px."""
    frames_per_clip: int = 16
    """Frames of each window of 16 that a step trains on; fewer, for more clips in a batch, where frames are apart:
    in stage 1 on latents. 16, 8, 4, 2 or 1."""
    audio_dropout: float = 0.0
    """Share of samples whose sound is replaced by the zeros that guidance compares with; the original has none."""
    snr_gamma: float | None = None
    """Weigh the noise's error by min(SNR, gamma) / SNR (Min-SNR, arXiv 2303.09556); the original weighs all alike."""
    guidance: float = 1.5
    inference_steps: int = 20
    """Denoising steps of the validation clip."""
    lora_rank: int | None = None
    """Train low-rank additions to the trainable linear layers instead, merged where a checkpoint is saved."""
    lora_alpha: int | None = None
    """Their scale, times the rank; the rank itself unless given."""

    def __post_init__(self) -> None:
        # a slotted dataclass is a class anew, which super() without arguments does not know
        Settings.__post_init__(self)
        for name in ("recon", "sync", "perceptual", "trepa"):
            if getattr(self, f"{name}_loss_weight") < 0:
                raise UsageError(f"{name}_loss_weight is {getattr(self, f'{name}_loss_weight')}; give 0 or more")
        if self.lora_rank is not None and self.lora_rank < 1:
            raise UsageError(f"lora_rank is {self.lora_rank}; give 1 or more")
        if self.frames_per_clip not in (1, 2, 4, 8, 16):
            raise UsageError(f"frames_per_clip is {self.frames_per_clip}; give 16, 8, 4, 2 or 1")
        if self.frames_per_clip < 16 and (self.motion or self.pixel_losses):
            raise UsageError(
                f"frames_per_clip is {self.frames_per_clip}; motion modules and losses on pixels see all 16 frames. "
                "It is for stage 1: use_motion_module and pixel_space_supervise false"
            )
        if not 0 <= self.audio_dropout < 1:
            raise UsageError(f"audio_dropout is {self.audio_dropout}; give a share under 1")
        if self.snr_gamma is not None and not self.snr_gamma > 0:
            raise UsageError(f"snr_gamma is {self.snr_gamma}; give a number over 0, such as 5")
        if self.inference_steps < 1 or not self.guidance >= 0:
            raise UsageError("inference_steps is 1 or more, guidance_scale 0 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncNetSettings(Settings):
    """StableSyncNet's own training."""

    model: Mapping[str, Any] = field(default_factory=dict)
    """The `model:` section; empty for the released network's."""
    batch_size: int = 256
    lower_half: bool = True
    num_val_samples: int = 2048
    """Pairs that an evaluation looks at."""
    paired: bool = False
    """Whether every sound is seen twice in a batch, with its faces and with others; the original draws them apart."""

    def __post_init__(self) -> None:
        Settings.__post_init__(self)
        if not self.lower_half:
            raise UsageError(
                "data.lower_half is false; lsx implements StableSyncNet on the lower half of the face only"
            )
        if self.paired and self.batch_size % 2:
            raise UsageError(f"data.batch_size is {self.batch_size}; with data.paired give an even number")


_COMMON = {
    "data.batch_size": "batch_size",
    "data.num_workers": "workers",
    "data.num_frames": "frames",
    "data.resolution": "resolution",
    "data.gradient_accumulation_steps": "gradient_accumulation_steps",
    "run.gradient_accumulation_steps": "gradient_accumulation_steps",
    "ckpt.save_ckpt_steps": "save_steps",
    "ckpt.keep_states": "keep_states",
    "run.seed": "seed",
    "run.max_train_steps": "max_train_steps",
    "run.max_train_epochs": "max_train_epochs",
    "run.validation_steps": "validation_steps",
    "run.mixed_precision_training": "mixed_precision",
    "run.mixed_precision": "mixed_precision",
    "run.enable_gradient_checkpointing": "gradient_checkpointing",
    "run.ema_decay": "ema_decay",
    "run.compile": "compile",
    "run.max_skipped_steps": "max_skipped_steps",
    "optimizer.lr": "lr",
    "optimizer.lr_scheduler": "lr_scheduler",
    "optimizer.lr_warmup_steps": "lr_warmup_steps",
    "optimizer.max_grad_norm": "max_grad_norm",
    "optimizer.weight_decay": "weight_decay",
}
_UNET = _COMMON | {
    "run.use_syncnet": "use_syncnet",
    "run.recon_loss_weight": "recon_loss_weight",
    "run.sync_loss_weight": "sync_loss_weight",
    "run.perceptual_loss_weight": "perceptual_loss_weight",
    "run.trepa_loss_weight": "trepa_loss_weight",
    "run.pixel_space_supervise": "pixel_losses",
    "run.trainable_modules": "trainable",
    "run.use_mixed_noise": "mixed_noise_alpha",
    "run.mixed_noise_alpha": "mixed_noise_alpha",
    "run.audio_dropout": "audio_dropout",
    "run.cache_latents": "cache_latents",
    "run.frames_per_clip": "frames_per_clip",
    "run.snr_gamma": "snr_gamma",
    "run.guidance_scale": "guidance",
    "run.inference_steps": "inference_steps",
    "run.lora_rank": "lora_rank",
    "run.lora_alpha": "lora_alpha",
}
_SYNCNET = _COMMON | {
    "data.lower_half": "lower_half",
    "data.num_val_samples": "num_val_samples",
    "data.paired": "paired",
}

_FIXED = {
    "data.audio_sample_rate": 16000,
    "data.video_fps": 25,
    "data.audio_feat_length": [2, 2],
}


def read_yaml(file: Path) -> dict[str, Any]:
    """A YAML file of sections. Raises UsageError in one line."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror or error}. Give a training configuration in YAML") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        place = getattr(error, "problem_mark", None)
        where = f", line {place.line + 1}" if place is not None else ""
        raise UsageError(f"{file}{where}: not YAML: {getattr(error, 'problem', None) or error}") from error
    if not isinstance(content, dict) or not all(isinstance(value, dict) for value in content.values()):
        raise UsageError(f"{file}: holds no sections. It has data:, ckpt:, run:, optimizer: and model:")
    return content


def read_settings(kind: Literal["unet", "syncnet"], file: Path, changes: Sequence[str] = ()) -> Settings:
    """The settings of a training from the original's YAML.

    changes : `section.name=value`, read as YAML, which replace the file's. Raises UsageError naming the key.
    """
    content = _changed(read_yaml(file), changes)
    names = _UNET if kind == "unet" else _SYNCNET
    values: dict[str, Any] = {"model": content.pop("model", {})}
    for section, entries in content.items():
        for name, value in entries.items():
            key = f"{section}.{name}"
            if key in names:
                values[names[key]] = _read(key, value, values.get(names[key]), file)
            elif key in _FIXED:
                if value != _FIXED[key]:
                    raise UsageError(f"{file}: {key} is {value}; LatentSync is trained with {_FIXED[key]}")
            elif key not in _PASSED_OVER:
                close = get_close_matches(key, names, 1)
                raise UsageError(f"{file}: there is no {key}{f'; did you mean {close[0]}' if close else ''}?")
    if kind == "syncnet":
        return _made(SyncNetSettings, values, file)
    return _unet_settings(values, content.get("run", {}), file)


def _unet_settings(values: dict[str, Any], run: Mapping[str, Any], file: Path) -> UNetSettings:
    values["motion"] = bool(values["model"].get("use_motion_module", True))
    if run.get("use_mixed_noise", True) is False:
        values["mixed_noise_alpha"] = None
    elif values.get("mixed_noise_alpha") is True:
        values["mixed_noise_alpha"] = 1.0
    return _made(UNetSettings, values, file)


def _made(kind: type[_T], values: dict[str, Any], file: Path) -> _T:
    """The settings of `values`. Raises UsageError that names the file."""
    try:
        return kind(**values)
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from error
    except TypeError as error:
        raise UsageError(f"{file}: a value has the wrong type: {error}") from error


def _changed(content: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    for change in changes:
        name, equals, text = change.partition("=")
        section, dot, key = name.partition(".")
        if not equals or not dot or not key:
            raise UsageError(f"--set {change}: give section.name=value, such as --set optimizer.lr=1e-4")
        try:
            content.setdefault(section, {})[key] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UsageError(f"--set {change}: the value is not YAML") from error
    return content


_WORDS: dict[str, type] = {"lr_scheduler": str, "mixed_precision": str}


def _read(key: str, value: Any, before: Any, file: Path) -> Any:
    """A value as its field takes it. YAML reads 1e-5 as a word, and true for a precision is the original's fp16."""
    name = key.split(".")[1]
    if name == "mixed_precision_training":
        return before or ("fp16" if value else "no")
    if name == "mixed_precision":
        return "no" if value is False else value
    if name == "trainable_modules":
        words = [] if value is None else value
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise UsageError(f"{file}: {key} is {value!r}; give a list of parts of parameter names")
        return tuple(words)
    if name == "use_mixed_noise":
        return before if before is not None else value
    if value is None or isinstance(value, bool) or name in _WORDS:
        return value
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{file}: {key} is {value!r}; give a number") from error
    return int(number) if number.is_integer() and not isinstance(value, float) and "." not in str(value) else number
