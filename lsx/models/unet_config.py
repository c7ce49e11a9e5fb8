"""The U-Net's configuration, read from the `model:` section of the original's YAML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lsx.errors import CheckpointError

__all__ = ["UNetConfig"]

_FIXED: dict[str, Any] = {
    "act_fn": "silu",
    "add_audio_layer": True,
    "center_input_sample": False,
    "mid_block_type": "UNetMidBlock3DCrossAttn",
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "resnet_time_scale_shift": "default",
    "use_motion_module": True,
    "motion_module_mid_block": False,
    "motion_module_decoder_only": False,
    "motion_module_type": "Vanilla",
}
"""What every released model has and lsx implements; another value is refused, never ignored."""

_FIXED_MOTION: dict[str, Any] = {
    "temporal_position_encoding": True,
    "temporal_attention_dim_div": 1,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class UNetConfig:
    """Topology of the U-Net. The defaults are LatentSync 1.5's and 1.6's."""

    in_channels: int = 13
    """Noisy latents 4, mask 1, masked-frame latents 4, reference-frame latents 4."""
    out_channels: int = 4
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int = 2
    """Layers of a down block; an up block has one more."""
    attention_levels: tuple[bool, ...] = (True, True, True, False)
    """Down blocks (and, mirrored, up blocks) that have spatial transformers."""
    heads: int = 8
    """Attention heads; the original calls this `attention_head_dim`."""
    norm_groups: int = 32
    cross_attention_dim: int = 384
    """Width of an audio token."""
    motion_heads: int = 8
    motion_blocks: int = 1
    motion_attentions: int = 2
    max_frames: int = 24
    """Length of the table of frame positions."""

    def __post_init__(self) -> None:
        for channels in self.block_out_channels:
            for name, divisor in (
                ("norm_num_groups", self.norm_groups),
                ("attention_head_dim (the number of heads)", self.heads),
                ("motion_module_kwargs.num_attention_heads", self.motion_heads),
                ("the motion modules' 32 groups", 32),
            ):
                if divisor < 1 or channels % divisor:
                    raise CheckpointError(
                        f"block_out_channels has {channels}, which {name} = {divisor} does not divide"
                    )

    @classmethod
    def from_mapping(cls, model: Mapping[str, Any], where: str) -> UNetConfig:
        """Read the original's `model:` section.

        Raises CheckpointError naming the key when a value is one that lsx does not implement. `where` names the
        file in that message.
        """
        motion = model.get("motion_module_kwargs", {})
        _require(model, _FIXED, f"{where}: model.")
        _require(motion, _FIXED_MOTION, f"{where}: model.motion_module_kwargs.")
        known = {"CrossAttnDownBlock3D": True, "DownBlock3D": False}
        known_up = {"CrossAttnUpBlock3D": True, "UpBlock3D": False}
        try:
            down = tuple(known[name] for name in model["down_block_types"])
            up = tuple(known_up[name] for name in model["up_block_types"])
            attentions = motion.get("attention_block_types", ["Temporal_Self", "Temporal_Self"])
            if set(attentions) != {"Temporal_Self"}:
                raise KeyError(f"attention_block_types {attentions}")
            config = cls(
                in_channels=int(model["in_channels"]),
                out_channels=int(model["out_channels"]),
                block_out_channels=tuple(int(n) for n in model["block_out_channels"]),
                layers_per_block=int(model["layers_per_block"]),
                attention_levels=down,
                heads=int(model["attention_head_dim"]),
                norm_groups=int(model["norm_num_groups"]),
                cross_attention_dim=int(model["cross_attention_dim"]),
                motion_heads=int(motion.get("num_attention_heads", 8)),
                motion_blocks=int(motion.get("num_transformer_block", 1)),
                motion_attentions=len(attentions),
                max_frames=int(motion.get("temporal_position_encoding_max_len", 24)),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"{where}: the model section lacks or misstates {error}") from error
        if len(down) != len(config.block_out_channels) or up != down[::-1]:
            raise CheckpointError(
                f"{where}: down_block_types, up_block_types and block_out_channels do not mirror each other"
            )
        return config

    def as_mapping(self) -> dict[str, Any]:
        """The `model:` section of the original's YAML; `from_mapping` reads it back."""
        down = ["CrossAttnDownBlock3D" if level else "DownBlock3D" for level in self.attention_levels]
        up = ["CrossAttnUpBlock3D" if level else "UpBlock3D" for level in reversed(self.attention_levels)]
        motion = {
            "num_attention_heads": self.motion_heads,
            "num_transformer_block": self.motion_blocks,
            "attention_block_types": ["Temporal_Self"] * self.motion_attentions,
            "temporal_position_encoding_max_len": self.max_frames,
            "zero_initialize": True,
        }
        return _FIXED | {
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "block_out_channels": list(self.block_out_channels),
            "layers_per_block": self.layers_per_block,
            "down_block_types": down,
            "up_block_types": up,
            "attention_head_dim": self.heads,
            "norm_num_groups": self.norm_groups,
            "cross_attention_dim": self.cross_attention_dim,
            "motion_module_kwargs": _FIXED_MOTION | motion,
        }


def _require(section: Mapping[str, Any], fixed: Mapping[str, Any], prefix: str) -> None:
    for key, value in fixed.items():
        if key in section and section[key] != value:
            raise CheckpointError(f"{prefix}{key} is {section[key]!r}; lsx implements {value!r} only")
