"""StableSyncNet: do these 16 frames and this sound belong together. Trained beside the U-Net, and its judge.

Parameter names are those of the released `stable_syncnet.pt`. Source: LatentSync, arXiv 2412.09262 §3.3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
import yaml
from torch import Tensor, nn

from lsx.core.sync_mel import SYNC_FRAMES
from lsx.errors import CheckpointError
from lsx.models.attention import Attention, FeedForward, checkpointed
from lsx.models.checkpoint import load_strict, read_tensors
from lsx.models.checkpoint_files import STABLE_SYNCNET_FILE, section

__all__ = [
    "STABLE_SYNCNET_FILE",
    "EncoderConfig",
    "StableSyncNet",
    "SyncNetConfig",
    "load_syncnet",
    "lower_half",
]

_GROUPS, _HEADS, _EPS = 32, 8, 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderConfig:
    """One of the two towers."""

    in_channels: int
    block_out_channels: tuple[int, ...]
    downsample_factors: tuple[tuple[int, int], ...]
    """Strides (height, width) of each level."""
    attn_blocks: tuple[bool, ...]
    """Levels that end in an attention block."""

    def __post_init__(self) -> None:
        levels = len(self.block_out_channels)
        if not levels or {len(self.downsample_factors), len(self.attn_blocks)} != {levels}:
            raise CheckpointError(
                f"SyncNet: {levels} block_out_channels, {len(self.downsample_factors)} downsample_factors and "
                f"{len(self.attn_blocks)} attn_blocks; give as many of each"
            )
        wrong = [n for n in self.block_out_channels if n < 1 or n % _GROUPS]
        if wrong:
            raise CheckpointError(f"SyncNet: block_out_channels has {wrong[0]}; give multiples of {_GROUPS}")
        if self.block_out_channels[-1] == _GROUPS:
            raise CheckpointError(
                f"SyncNet: the last of block_out_channels is {_GROUPS}, of which the last norm would leave nothing; "
                f"give {4 * _GROUPS} or more"
            )

    @classmethod
    def from_mapping(cls, section: Mapping[str, Any], where: str) -> EncoderConfig:
        """Read `audio_encoder` or `visual_encoder` of the original's YAML. Raises CheckpointError naming the key."""
        try:
            return cls(
                in_channels=int(section["in_channels"]),
                block_out_channels=tuple(int(n) for n in section["block_out_channels"]),
                downsample_factors=tuple(_pair(f) for f in section["downsample_factors"]),
                attn_blocks=tuple(bool(n) for n in section["attn_blocks"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{where}: lacks or misstates {error}") from error


def _pair(factor: int | Sequence[int]) -> tuple[int, int]:
    height, width = (factor, factor) if isinstance(factor, int) else factor
    return int(height), int(width)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncNetConfig:
    """Both towers. The defaults are those of the released weights."""

    audio_encoder: EncoderConfig = EncoderConfig(
        in_channels=1,
        block_out_channels=(32, 64, 128, 256, 512, 1024, 2048),
        downsample_factors=((2, 1), (2, 2), (2, 2), (1, 1), (2, 2), (2, 2), (2, 3)),
        attn_blocks=(False, False, False, True, True, False, False),
    )
    visual_encoder: EncoderConfig = EncoderConfig(
        in_channels=48,
        block_out_channels=(64, 128, 256, 256, 512, 1024, 2048, 2048),
        downsample_factors=((1, 2), *(((2, 2),) * 7)),
        attn_blocks=(False, False, False, False, True, True, False, False),
    )
    resolution: int = 256
    """Height and width in pixels of the faces whose lower half it looks at."""

    def __post_init__(self) -> None:
        if self.resolution < 32 or self.resolution % 2:
            raise CheckpointError(f"SyncNet: resolution is {self.resolution}; give an even number of 32 or more")

    @property
    def frames(self) -> int:
        """Frames of one look."""
        return self.visual_encoder.in_channels // 3

    @classmethod
    def from_mapping(cls, model: Mapping[str, Any], where: str) -> SyncNetConfig:
        """Read the `model:` section of the original's SyncNet YAML. Raises CheckpointError naming the key."""
        towers: dict[str, Any] = {}
        for name in ("audio_encoder", "visual_encoder"):
            section = model.get(name)
            if not isinstance(section, Mapping):
                raise CheckpointError(f"{where}: has no section {name}; this is not StableSyncNet's configuration")
            towers[name] = EncoderConfig.from_mapping(section, f"{where}: {name}")
        try:
            return cls(**towers, resolution=int(model.get("resolution", 256)))
        except (TypeError, ValueError) as error:
            raise CheckpointError(f"{where}: resolution is {model['resolution']!r}; give pixels") from error

    def as_mapping(self) -> dict[str, Any]:
        """The `model:` section of a YAML file with this configuration."""
        towers = {
            name: {key: _plain(value) for key, value in asdict(getattr(self, name)).items()}
            for name in ("audio_encoder", "visual_encoder")
        }
        return towers | {"resolution": self.resolution}


def _plain(value: Any) -> Any:
    """Lists for tuples, as YAML has them."""
    return [_plain(part) for part in value] if isinstance(value, tuple) else value


class _Resnet(nn.Module):
    """Norm, SiLU, convolution, twice, plus the input; then a convolution that shrinks where the level does."""

    def __init__(self, channels: int, out_channels: int, factor: tuple[int, int]) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(_GROUPS, channels, eps=_EPS)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(_GROUPS, out_channels, eps=_EPS)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(channels, out_channels, 1) if channels != out_channels else None
        self.downsample_conv = nn.Conv2d(out_channels, out_channels, 3, stride=factor) if factor != (1, 1) else None
        height, width = factor
        self._pad = (0, 1, 1, 1) if height == 1 else (1, 1, 0, 1) if width == 1 else (0, 1, 0, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        x = self.conv1(F.silu(self.norm1(hidden)))
        x = self.conv2(F.silu(self.norm2(x)))
        x = x + (hidden if self.conv_shortcut is None else self.conv_shortcut(hidden))
        out: Tensor = x if self.downsample_conv is None else self.downsample_conv(F.pad(x, self._pad))
        return out


class _Attention(nn.Module):
    """Self-attention over the places of a feature map, and a feed-forward."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(_GROUPS, channels, eps=_EPS)
        self.norm2, self.norm3 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.ff = FeedForward(channels)
        self.conv_in, self.conv_out = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)
        self.attn = Attention(channels, _HEADS, bias=True)

    def forward(self, hidden: Tensor) -> Tensor:
        size = hidden.shape[2:]
        x = self.conv_in(self.norm1(hidden)).flatten(2).transpose(1, 2)
        x = x + self.attn(self.norm2(x))
        x = x + self.ff(self.norm3(x))
        out: Tensor = hidden + self.conv_out(x.transpose(1, 2).unflatten(2, size))
        return out


class _Encoder(nn.Module):
    """One tower: [n, in_channels, height, width] to [n, last channels * what is left of height and width]."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        channels = config.block_out_channels[0]
        self.conv_in = nn.Conv2d(config.in_channels, channels, 3, padding=1)
        blocks: list[nn.Module] = []
        levels = zip(config.block_out_channels, config.downsample_factors, config.attn_blocks, strict=True)
        for width, factor, attention in levels:
            blocks.append(_Resnet(channels, width, factor))
            blocks += [_Attention(width)] if attention else []
            channels = width
        self.down_blocks = nn.ModuleList(blocks)
        self.norm_out = nn.GroupNorm(_GROUPS, channels, eps=_EPS)
        self.checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = checkpointed(block, x, enabled=self.checkpointing)
        return F.relu(self.norm_out(x)).flatten(1)


class StableSyncNet(nn.Module):
    """Frames and sound to unit vectors whose cosine says how well they go together, 0 to 1.

    frames : [n, 16 * 3, R / 2, R], the lower halves of 16 faces in -1..1, frames outermost, R the configuration's
    resolution (256 as released); mel : [n, 1, 80, 52].
    """

    def __init__(self, config: SyncNetConfig) -> None:
        super().__init__()
        self.config = config
        self.audio_encoder = _Encoder(config.audio_encoder)
        self.visual_encoder = _Encoder(config.visual_encoder)

    def checkpoint_gradients(self) -> None:
        """Keep only what stands between blocks for the way back, and compute the rest again."""
        self.audio_encoder.checkpointing = self.visual_encoder.checkpointing = True

    def forward(self, frames: Tensor, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Unit vectors [n, width] of the frames and of the sound."""
        return F.normalize(self.visual_encoder(frames)), F.normalize(self.audio_encoder(mel))


def lower_half(faces: Tensor, resolution: int = 256) -> Tensor:
    """Faces [(n 16), 3, H, W] as StableSyncNet of `resolution` takes them: [n, 48, resolution / 2, resolution].

    Faces of another size are resized first, bicubic, as in the original's training.
    """
    if faces.shape[-1] != resolution:
        faces = F.interpolate(faces, size=(resolution, resolution), mode="bicubic")
    looks: Tensor = faces.unflatten(0, (-1, SYNC_FRAMES)).flatten(1, 2)
    return looks[:, :, resolution // 2 :]


def load_syncnet(file: Path) -> StableSyncNet:
    """StableSyncNet from `stable_syncnet.pt`, frozen. Its configuration is the .yaml of the same name beside it, or the
    released one. Raises CheckpointError.
    """
    state = read_tensors(file).get("state_dict")
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{file}: no `state_dict` in it; this is not {STABLE_SYNCNET_FILE}")
    beside = file.with_suffix(".yaml")
    config = SyncNetConfig()
    if beside.is_file():
        content = yaml.safe_load(beside.read_text(encoding="utf-8"))
        config = SyncNetConfig.from_mapping(section(content or {}, "model", str(beside)), str(beside))
    with torch.device("meta"):
        network = StableSyncNet(config)
    load_strict(network, state, file)
    return network
