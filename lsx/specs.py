"""The numbers of the model and of a job, as frozen value types. No heavy imports."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from lsx.errors import UsageError

__all__ = [
    "DTYPES",
    "FLOAT_PRECISIONS",
    "LOW_PRECISIONS",
    "MAX_SEED",
    "PRECISIONS",
    "SAMPLERS",
    "Dtype",
    "FloatPrecision",
    "LowPrecision",
    "ModelSpec",
    "Precision",
    "SampleOptions",
    "Sampler",
    "TensorSpec",
    "base_precision",
    "tokens_per_frame",
]

Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8", "fp8")
LowPrecision = Literal["int8", "fp8"]
"""Precisions of single layers, by Q/DQ, in a graph that is fp16 otherwise."""
LOW_PRECISIONS: tuple[LowPrecision, ...] = ("int8", "fp8")
FloatPrecision = Literal["fp32", "fp16", "bf16"]
FLOAT_PRECISIONS: tuple[FloatPrecision, ...] = ("fp32", "fp16", "bf16")

Dtype = Literal["float32", "float16", "bfloat16", "uint8", "int64"]
DTYPES: tuple[Dtype, ...] = ("float32", "float16", "bfloat16", "uint8", "int64")

Sampler = Literal["ddim", "dpm++2m"]
SAMPLERS: tuple[Sampler, ...] = ("ddim", "dpm++2m")

MAX_SEED = 2**63 - 1


def base_precision(precision: Precision) -> FloatPrecision:
    """The precision of what is not quantised: fp16 round int8 and fp8 layers."""
    return _BASE[precision]


_BASE: dict[Precision, FloatPrecision] = {"fp32": "fp32", "fp16": "fp16", "bf16": "bf16", "int8": "fp16", "fp8": "fp16"}


def tokens_per_frame(window: tuple[int, int], states: int) -> int:
    """Audio tokens that one video frame sees: 2 feature rows a video frame over `window`, `states` each.

    Source: LatentSync's `audio_feat_length` [2, 2] gives rows 2i-4 .. 2i+5, 10 rows of 5 states.
    """
    return 2 * (window[0] + window[1] + 1) * states


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """What of a LatentSync model the runtime has to know. Resolutions in pixels."""

    version: str
    """`latentsync-1.5`, `latentsync-1.6`, or a name of the user's own."""
    resolution: int
    """Edge of the square face, in pixels; a multiple of 64."""
    frames: int = 16
    """Video frames in one U-Net call."""
    video_fps: int = 25
    """Frames per second that the model was trained on."""
    sample_rate: int = 16000
    """Audio samples per second that the encoder takes, mono."""
    audio_window: tuple[int, int] = (2, 2)
    """Video frames before and after, whose audio a frame sees (`audio_feat_length`)."""
    audio_states: int = 5
    """Encoder states a feature row carries: convolution output and one a block."""
    audio_dim: int = 384
    """Width of one audio token."""
    max_frames: int = 24
    """Longest frame axis that the temporal positions allow."""

    def __post_init__(self) -> None:
        if self.resolution < 64 or self.resolution % 64:
            raise UsageError(f"resolution is {self.resolution}; it must be a positive multiple of 64")
        if not 1 <= self.frames <= self.max_frames:
            raise UsageError(f"num_frames is {self.frames}; it must be in 1..{self.max_frames}")
        if self.video_fps != 25 or self.sample_rate != 16000:
            raise UsageError(
                f"video_fps {self.video_fps} and audio_sample_rate {self.sample_rate} are not supported: "
                "every released LatentSync model takes 25 and 16000"
            )

    @property
    def latent(self) -> int:
        """Edge of the latents: resolution / 8."""
        return self.resolution // 8

    @property
    def tokens(self) -> int:
        """Audio tokens a frame (50 for the released models)."""
        return tokens_per_frame(self.audio_window, self.audio_states)

    @property
    def vae_frames(self) -> int:
        """Frames that the VAE takes at a time. It treats frames one by one, so this bounds memory and nothing else."""
        return self._frames_within(4 * 512**2)

    @property
    def host_vae_frames(self) -> int:
        """The same on a CPU: a frame of 256 px at a time takes a twelfth of the memory of 16, and less time."""
        return self._frames_within(256**2)

    def _frames_within(self, pixels: int) -> int:
        """The most frames that divide a chunk and have no more pixels in all; at least one."""
        most = max(pixels // self.resolution**2, 1)
        return max(n for n in range(1, self.frames + 1) if self.frames % n == 0 and n <= most)

    @property
    def samples_per_frame(self) -> int:
        """Audio samples a video frame (640)."""
        return self.sample_rate // self.video_fps


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """Name, dtype and shape of one I/O tensor. A string in the shape names an axis that varies."""

    name: str
    dtype: Dtype
    shape: tuple[int | str, ...]

    def shape_at(self, axes: Mapping[str, int]) -> tuple[int, ...]:
        """The shape where the axes that vary have these lengths."""
        return tuple(axes[n] if isinstance(n, str) else n for n in self.shape)

    def as_float32(self) -> TensorSpec:
        """The same in float32; uint8 stays."""
        return self if self.dtype == "uint8" else replace(self, dtype="float32")

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}[{', '.join(str(n) for n in self.shape)}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleOptions:
    """How the latents of every call are denoised."""

    steps: int = 20
    """Denoising steps, 1..1000; LatentSync's users run 20 to 50."""
    guidance: float = 1.5
    """Guidance scale, 1..20; 1 turns guidance off and halves the batch."""
    cache_interval: int | None = 3
    """DeepCache: a full U-Net every this many steps (1..1000); None turns it off. 3 is the released script's."""
    seed: int = 0
    """Seed of every noise array, 0..2**63-1."""
    sampler: Sampler = "ddim"
    """`ddim`, which the model was released with, or `dpm++2m` (DPM-Solver++ 2M), which needs about half the steps."""

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise UsageError(f"sampler is {self.sampler}; choose one of {', '.join(SAMPLERS)}")
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or not 1 <= self.steps <= 1000:
            raise UsageError(f"steps is {self.steps}; give a whole number in 1..1000 (20 is usual)")
        if self.sampler == "dpm++2m" and self.steps > 998:
            raise UsageError(f"steps is {self.steps}; dpm++2m takes at most 998 (10 is usual)")
        if not math.isfinite(self.guidance) or not 1 <= self.guidance <= 20:
            raise UsageError(f"guidance is {self.guidance}; give a number in 1..20 (1.5 is usual, 1 is off)")
        interval = self.cache_interval
        if interval is not None and (
            isinstance(interval, bool) or not isinstance(interval, int) or not 1 <= interval <= 1000
        ):
            raise UsageError(f"cache_interval is {interval}; give a whole number in 1..1000, or off")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed <= MAX_SEED:
            raise UsageError(f"seed is {self.seed}; give a whole number in 0..{MAX_SEED}")

    @property
    def guidance_batch(self) -> int:
        """Batch of a U-Net call: 2 with guidance, 1 without."""
        return 2 if self.guidance > 1 else 1
