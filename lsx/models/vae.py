"""Stable Diffusion's VAE under diffusers' names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from lsx.errors import CheckpointError
from lsx.models.attention import checkpointed

__all__ = ["VAE_WEIGHTS", "Posterior", "Vae", "VaeConfig", "present_names", "write_vae"]

VAE_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
"""What the file of the weights may be called; the first that is there is read."""

_EPS = 1e-6
_PIXELS, _LATENTS = 3, 4  # channels
_LEAST, _MOST = -30.0, 20.0  # of the log of the variance
_FIXED = {
    "act_fn": "silu",
    "in_channels": _PIXELS,
    "out_channels": _PIXELS,
    "latent_channels": _LATENTS,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "mid_block_add_attention": True,
}
_OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


@dataclass(frozen=True, slots=True, kw_only=True)
class VaeConfig:
    """What differs between VAEs. The defaults are the published one's."""

    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    layers_per_block: int = 2
    norm_num_groups: int = 32
    sample_size: int = 256
    """Pixels of the pictures that it was trained on; it takes others too."""
    decoder_block_out_channels: tuple[int, ...] | None = None
    """The decoder's, where it has others, as many; diffusers has no such VAEs, `lsx distill vae` makes them."""
    decoder_layers_per_block: int | None = None
    """The decoder's, where it has others; a level has one more."""

    def __post_init__(self) -> None:
        widths, groups = self.decoder_widths, self.norm_num_groups
        if len(widths) != len(self.block_out_channels) or any(width < 1 or width % groups for width in widths):
            raise ValueError(
                f"a decoder of {', '.join(str(width) for width in widths)} channels; give "
                f"{len(self.block_out_channels)} multiples of {groups}"
            )
        if self.decoder_layers < 0:
            raise ValueError(f"a decoder of {self.decoder_layers} layers a block; give 0 or more")

    @property
    def decoder_widths(self) -> tuple[int, ...]:
        """Channels of the decoder's levels, those of the whole picture first."""
        return self.decoder_block_out_channels or self.block_out_channels

    @property
    def decoder_layers(self) -> int:
        """`layers_per_block` of the decoder."""
        own = self.decoder_layers_per_block
        return self.layers_per_block if own is None else own

    @classmethod
    def from_file(cls, path: Path) -> VaeConfig:
        """Read diffusers' config.json. Raises CheckpointError."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            blocks = tuple(int(n) for n in content["block_out_channels"])
            kinds = (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D"))
            fixed = _FIXED | {name: [kind] * len(blocks) for name, kind in kinds}
            for name, value in fixed.items():
                if content.get(name, value) != value:
                    raise CheckpointError(f"{path}: {name} is {content[name]}; lsx has VAEs with {value}")
            drawn, layers = content.get("decoder_block_out_channels"), content.get("decoder_layers_per_block")
            return cls(
                decoder_block_out_channels=None if drawn is None else tuple(int(n) for n in drawn),
                decoder_layers_per_block=None if layers is None else int(layers),
                block_out_channels=blocks,
                layers_per_block=int(content.get("layers_per_block", 1)),
                norm_num_groups=int(content.get("norm_num_groups", 32)),
                sample_size=int(content.get("sample_size", 256)),
            )
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{path}: not the configuration of a VAE ({error})") from error

    def as_mapping(self) -> dict[str, Any]:
        """The content of diffusers' config.json."""
        levels = len(self.block_out_channels)
        own = {name: getattr(self, name) for name in ("decoder_block_out_channels", "decoder_layers_per_block")}
        return {
            "_class_name": "AutoencoderKL",
            **_FIXED,
            "block_out_channels": list(self.block_out_channels),
            "down_block_types": ["DownEncoderBlock2D"] * levels,
            "up_block_types": ["UpDecoderBlock2D"] * levels,
            "layers_per_block": self.layers_per_block,
            "norm_num_groups": self.norm_num_groups,
            "sample_size": self.sample_size,
            "scaling_factor": 0.18215,
        } | {name: value for name, value in own.items() if value is not None}


def present_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights with attention under the names that it has had since 2023, as linear layers."""
    renamed = {}
    for key, value in state.items():
        found = re.fullmatch(r"(.*\.attentions\.\d+\.)(query|key|value|proj_attn)(\.\w+)", key)
        if found is None:
            renamed[key] = value
        else:  # once a convolution of one pixel
            renamed[f"{found[1]}{_OLD_NAMES[found[2]]}{found[3]}"] = value.flatten(1) if value.ndim > 1 else value
    return renamed


def write_vae(folder: Path, config: VaeConfig, state: Mapping[str, Tensor]) -> None:
    """Write a VAE into `folder` as diffusers does: config.json and safetensors. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config.as_mapping(), indent=2), encoding="utf-8")
    try:
        save_file({name: value.cpu().contiguous() for name, value in state.items()}, folder / VAE_WEIGHTS[0])
    except SafetensorError as error:  # a full disk is one, too
        raise OSError(str(error)) from error


class _Resnet(nn.Module):
    """Norm, SiLU, convolution, twice, plus the input."""

    def __init__(self, channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels, eps=_EPS)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps=_EPS)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(channels, out_channels, 1) if channels != out_channels else None

    def forward(self, hidden: Tensor) -> Tensor:
        x = self.conv1(F.silu(self.norm1(hidden)))
        x = self.conv2(F.silu(self.norm2(x)))
        shortcut: Tensor = hidden if self.conv_shortcut is None else self.conv_shortcut(hidden)
        out: Tensor = shortcut + x
        return out


class _Attention(nn.Module):
    """Self-attention of one head over the places of a feature map, plus the input."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, eps=_EPS)
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, channels) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, hidden: Tensor) -> Tensor:
        x = self.group_norm(hidden.flatten(2)).transpose(1, 2)
        q, k, v = (to(x).unflatten(-1, (1, -1)).transpose(1, 2) for to in (self.to_q, self.to_k, self.to_v))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        out: Tensor = self.to_out[0](mixed).transpose(1, 2).unflatten(-1, hidden.shape[-2:])
        return out + hidden


class _Down(nn.Module):
    """One convolution with stride 2, over a row and a column of zeros at the far ends."""

    name = "downsamplers"

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, hidden: Tensor) -> Tensor:
        out: Tensor = self.conv(F.pad(hidden, (0, 1, 0, 1)))
        return out


class _Up(nn.Module):
    """Nearest x2, and one convolution."""

    name = "upsamplers"

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        out: Tensor = self.conv(F.interpolate(hidden, scale_factor=2.0, mode="nearest"))
        return out


class _Level(nn.Module):
    """The resnets of one size, and the way to the next."""

    def __init__(self, widths: tuple[int, ...], groups: int, step: type[_Down | _Up] | None) -> None:
        """widths : before, between and after the resnets; step : to the next size, None at the last."""
        super().__init__()
        self.resnets = nn.ModuleList(_Resnet(before, after, groups) for before, after in pairwise(widths))
        self._step = None if step is None else step.name
        if step is not None:
            setattr(self, step.name, nn.ModuleList([step(widths[-1])]))

    def forward(self, hidden: Tensor) -> Tensor:
        for resnet in self.resnets:
            hidden = resnet(hidden)
        if self._step is None:
            return hidden
        out: Tensor = getattr(self, self._step)[0](hidden)
        return out


def _levels(widths: tuple[int, ...], layers: int, groups: int, step: type[_Down | _Up]) -> Iterator[_Level]:
    """The levels of all sizes, `layers` resnets each."""
    for number, (before, width) in enumerate(pairwise((widths[0], *widths))):
        last = number == len(widths) - 1
        yield _Level((before, *([width] * layers)), groups, None if last else step)


class _Middle(nn.Module):
    """Attention between two resnets."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        first, attention = _Resnet(channels, channels, groups), _Attention(channels, groups)
        self.attentions = nn.ModuleList([attention])
        self.resnets = nn.ModuleList([first, _Resnet(channels, channels, groups)])

    def forward(self, hidden: Tensor) -> Tensor:
        out: Tensor = self.resnets[1](self.attentions[0](self.resnets[0](hidden)))
        return out


class _Encoder(nn.Module):
    """Pixels [n, 3, H, W] to what the latents' mean and log variance are made of: [n, 8, H / 8, W / 8]."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        widths, groups = config.block_out_channels, config.norm_num_groups
        self.conv_in = nn.Conv2d(_PIXELS, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(_levels(widths, config.layers_per_block, groups, _Down))
        self.mid_block = _Middle(widths[-1], groups)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], eps=_EPS)
        self.conv_out = nn.Conv2d(widths[-1], 2 * _LATENTS, 3, padding=1)
        self.checkpointing = False

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.conv_in(pixels)
        for block in (*self.down_blocks, self.mid_block):
            x = checkpointed(block, x, enabled=self.checkpointing)
        out: Tensor = self.conv_out(F.silu(self.conv_norm_out(x)))
        return out


class _Decoder(nn.Module):
    """Latents [n, 4, h, w] to pixels [n, 3, 8 h, 8 w]."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        widths, groups = config.decoder_widths[::-1], config.norm_num_groups
        self.conv_in = nn.Conv2d(_LATENTS, widths[0], 3, padding=1)
        self.mid_block = _Middle(widths[0], groups)
        self.up_blocks = nn.ModuleList(_levels(widths, config.decoder_layers + 1, groups, _Up))
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], eps=_EPS)
        self.conv_out = nn.Conv2d(widths[-1], _PIXELS, 3, padding=1)
        self.checkpointing = False

    def forward(self, latents: Tensor) -> Tensor:
        x = self.conv_in(latents)
        for block in (self.mid_block, *self.up_blocks):
            x = checkpointed(block, x, enabled=self.checkpointing)
        out: Tensor = self.conv_out(F.silu(self.conv_norm_out(x)))
        return out


@dataclass(frozen=True, slots=True, eq=False)
class Posterior:
    """What the encoder says of latents, [n, 4, h, w] each: independent normals."""

    mean: Tensor
    log_variance: Tensor
    """Numbers between -30 and 20."""

    @property
    def deviation(self) -> Tensor:
        """Its square root, of the variance."""
        return torch.exp(0.5 * self.log_variance)


class Vae(nn.Module):
    """Pixels in -1..1 to latents, which are not scaled, and back."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.decoder = _Encoder(config), _Decoder(config)
        self.quant_conv = nn.Conv2d(2 * _LATENTS, 2 * _LATENTS, 1)
        self.post_quant_conv = nn.Conv2d(_LATENTS, _LATENTS, 1)

    def checkpoint_gradients(self) -> None:
        """Keep only what stands between blocks for the way back, and compute the rest again."""
        self.encoder.checkpointing = self.decoder.checkpointing = True

    def encode(self, pixels: Tensor) -> Posterior:
        """The distribution of the latents of pixels [n, 3, H, W]."""
        mean, log_variance = self.quant_conv(self.encoder(pixels)).chunk(2, dim=1)
        return Posterior(mean, log_variance.clamp(_LEAST, _MOST))

    def decode(self, latents: Tensor) -> Tensor:
        """Pixels [n, 3, 8 h, 8 w] of latents [n, 4, h, w]."""
        out: Tensor = self.decoder(self.post_quant_conv(latents))
        return out
