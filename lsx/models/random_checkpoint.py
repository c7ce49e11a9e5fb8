"""Seeded random weights in the released files' formats, for tests and for sizing a machine without the weights."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor

from lsx.core.noise import named_noise
from lsx.errors import OutputError
from lsx.models.checkpoint_files import check_new_checkpoint
from lsx.models.unet import UNet3D
from lsx.models.unet_config import UNetConfig
from lsx.models.vae import Vae, VaeConfig, write_vae
from lsx.models.whisper import sinusoids

__all__ = ["data_section", "random_checkpoint", "seeded_weight", "write_whisper"]

_MODEL: dict[str, Any] = {
    "act_fn": "silu",
    "add_audio_layer": True,
    "center_input_sample": False,
    "cross_attention_dim": 384,
    "down_block_types": ["CrossAttnDownBlock3D"] * 3 + ["DownBlock3D"],
    "mid_block_type": "UNetMidBlock3DCrossAttn",
    "up_block_types": ["UpBlock3D"] + ["CrossAttnUpBlock3D"] * 3,
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 13,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-5,
    "out_channels": 4,
    "sample_size": 64,
    "resnet_time_scale_shift": "default",
    "use_motion_module": True,
    "motion_module_resolutions": [1, 2, 4, 8],
    "motion_module_mid_block": False,
    "motion_module_decoder_only": False,
    "motion_module_type": "Vanilla",
    "motion_module_kwargs": {
        "num_attention_heads": 8,
        "num_transformer_block": 1,
        "attention_block_types": ["Temporal_Self", "Temporal_Self"],
        "temporal_position_encoding": True,
        "temporal_position_encoding_max_len": 24,
        "temporal_attention_dim_div": 1,
        "zero_initialize": True,
    },
}

_UNET_SIZE: dict[str, dict[str, Any]] = {
    "minimal": {
        "block_out_channels": [32, 64],
        "down_block_types": ["CrossAttnDownBlock3D", "DownBlock3D"],
        "up_block_types": ["UpBlock3D", "CrossAttnUpBlock3D"],
        "layers_per_block": 1,
        "attention_head_dim": 4,
        "norm_num_groups": 8,
    },
    "small": {"block_out_channels": [32, 64, 96, 96], "attention_head_dim": 4, "norm_num_groups": 8},
    "full": {"block_out_channels": [320, 640, 1280, 1280], "attention_head_dim": 8, "norm_num_groups": 32},
}

_VAE_SIZE: dict[str, dict[str, Any]] = {
    "minimal": {"block_out_channels": (32, 32, 32, 32), "layers_per_block": 1, "norm_num_groups": 8},
    "small": {"block_out_channels": (32, 64, 96, 96), "layers_per_block": 2, "norm_num_groups": 8},
    "full": {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "norm_num_groups": 32},
}
_WHISPER_LAYERS = {"minimal": 1, "small": 4, "full": 4}

_WHISPER_TINY = {
    "n_mels": 80,
    "n_audio_ctx": 1500,
    "n_audio_state": 384,
    "n_audio_head": 6,
    "n_audio_layer": 4,
    "n_vocab": 51865,
    "n_text_ctx": 448,
    "n_text_state": 384,
    "n_text_head": 6,
    "n_text_layer": 4,
}


def seeded_weight(key: str, shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """The float32 parameter for one state-dict key: healthy activations, softmax far from uniform, nothing zero.

    Not for the position tables, which keep their formulas.
    """
    z = named_noise(key, shape, seed)
    module, _, leaf = key.rpartition(".")
    if len(shape) == 1:
        is_norm = "norm" in module or module.endswith(("_ln", "ln_post"))
        scale, offset = (0.1, 1.0 if leaf == "weight" else 0.0) if is_norm else (0.05, 0.0)
        return (offset + scale * z).astype(np.float32)
    if "embedding" in key and "time_embedding" not in key:
        return (0.02 * z).astype(np.float32)
    gain = 1.3 if any(part in key for part in ("to_q.", "to_k.", ".query.", ".key.")) else 1.0
    return (gain * z / math.sqrt(math.prod(shape[1:]))).astype(np.float32)


def random_checkpoint(folder: Path, *, size: str = "small", seed: int = 0, resolution: int | None = None) -> Path:
    """Write a checkpoint of seeded random weights into the new folder `folder`, and return it.

    size : `small` (the released topology, narrow: 30 MB), `full` (the released size: 5.5 GB), or `minimal` (few layers,
    of every kind: exported in a third of the time).
    resolution : pixels in its config.yaml; 256 by default.

    Raises UsageError for another size, OutputError when the folder exists or cannot be written.
    """
    check_new_checkpoint(folder, size=size, seed=seed)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        model = _MODEL | _UNET_SIZE[size]
        _write_unet(partial / "latentsync_unet.pt", model, seed)
        _write_vae(partial / "vae", _VAE_SIZE[size], seed)
        write_whisper(partial / "whisper" / "tiny.pt", seed, _WHISPER_LAYERS[size])
        config = {"data": data_section(resolution or 256), "model": model}
        (partial / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        partial.chmod(0o755)
        partial.rename(folder)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def data_section(resolution: int) -> dict[str, Any]:
    """The `data:` section of a checkpoint's config.yaml."""
    return {
        "num_frames": 16,
        "resolution": resolution,
        "audio_feat_length": [2, 2],
        "video_fps": 25,
        "audio_sample_rate": 16000,
        "mask_image_path": "latentsync/utils/mask.png",
    }


def _draw(expected: Mapping[str, Tensor], seed: int) -> Iterator[tuple[str, Tensor]]:
    for key, value in expected.items():
        yield key, torch.from_numpy(seeded_weight(key, tuple(value.shape), seed))


def _write_unet(path: Path, model: Mapping[str, Any], seed: int) -> None:
    from lsx.models.attention import frame_positions

    config = UNetConfig.from_mapping(model, "the random checkpoint")
    with torch.device("meta"):
        expected = UNet3D(config).state_dict()
    drawn = dict(_draw({k: v for k, v in expected.items() if not k.endswith(".pe")}, seed))
    tables = {k: frame_positions(*v.shape[1:]) for k, v in expected.items() if k.endswith(".pe")}
    state = {key: tables[key] if key in tables else drawn[key] for key in expected}
    torch.save({"global_step": 0, "state_dict": state}, path)


def _write_vae(folder: Path, size: Mapping[str, Any], seed: int) -> None:
    config = VaeConfig(**size)
    with torch.device("meta"):
        vae = Vae(config)
    write_vae(folder, config, dict(_draw(vae.state_dict(), seed)))


def write_whisper(path: Path, seed: int, layers: int = 4) -> None:
    """Write OpenAI's tiny Whisper with seeded random weights to `path`, in a new folder; it has 4 layers."""
    path.parent.mkdir()
    state = dict(_draw(_whisper_layout(layers), seed))
    state["encoder.positional_embedding"] = sinusoids(1500, 384)
    dims = _WHISPER_TINY | {"n_audio_layer": layers, "n_text_layer": layers}
    torch.save({"dims": dims, "model_state_dict": state}, path)


def _whisper_layout(layers: int) -> dict[str, Tensor]:
    """Names and shapes of OpenAI's tiny Whisper, encoder and decoder, as meta tensors."""
    width = 384
    layout: dict[str, tuple[int, ...]] = {
        "encoder.positional_embedding": (1500, width),
        "encoder.conv1.weight": (width, 80, 3),
        "encoder.conv1.bias": (width,),
        "encoder.conv2.weight": (width, width, 3),
        "encoder.conv2.bias": (width,),
        "encoder.ln_post.weight": (width,),
        "encoder.ln_post.bias": (width,),
        "decoder.positional_embedding": (448, width),
        "decoder.token_embedding.weight": (51865, width),
        "decoder.ln.weight": (width,),
        "decoder.ln.bias": (width,),
    }
    for side in ("encoder", "decoder"):
        attentions = ("attn",) if side == "encoder" else ("attn", "cross_attn")
        for block in (f"{side}.blocks.{i}" for i in range(layers)):
            for attention in attentions:
                for part in ("query", "key", "value", "out"):
                    layout[f"{block}.{attention}.{part}.weight"] = (width, width)
                    if part != "key":
                        layout[f"{block}.{attention}.{part}.bias"] = (width,)
                layout[f"{block}.{attention}_ln.weight"] = (width,)
                layout[f"{block}.{attention}_ln.bias"] = (width,)
            for part, shape in (("0", (4 * width, width)), ("2", (width, 4 * width))):
                layout[f"{block}.mlp.{part}.weight"] = shape
                layout[f"{block}.mlp.{part}.bias"] = shape[:1]
            layout[f"{block}.mlp_ln.weight"] = (width,)
            layout[f"{block}.mlp_ln.bias"] = (width,)
    return {key: torch.empty(shape, device="meta") for key, shape in layout.items()}
