"""The graphs: for each its module, seeded example inputs, I/O names and axes that vary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lsx.core.graph_names import SYNC_GRAPHS
from lsx.core.mel import MELS
from lsx.core.model_spec import ModelSpec
from lsx.core.noise import named_noise
from lsx.core.sync_mel import MEL_COLUMNS
from lsx.graphs import modules
from lsx.models.checkpoint import Checkpoint
from lsx.models.stable_syncnet import StableSyncNet

__all__ = ["GRAPHS", "GraphSpec", "in_halves", "sync_specs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphSpec:
    """One exported graph."""

    name: str
    build: Callable[[Checkpoint], modules.GraphModule]
    """Loads the float32 module from a checkpoint."""
    example_inputs: Callable[[ModelSpec, nn.Module, int], dict[str, NDArray[Any]]]
    """Seeded inputs, float32 or uint8, at a given length of the varying axis."""
    outputs: tuple[str, ...]
    axis: str | None
    """Name of the axis that varies; None if none does."""
    varying: dict[str, int]
    """I/O tensors with that axis, and where it is."""
    free_axis_after_trace: bool = False
    """Trace with a fixed length of the axis and free it afterwards (`free_leading_axis`)."""
    graph_dtype_tensors: tuple[str, ...] = ()
    """I/O tensors in the graph's precision; the others are float32 or uint8."""
    always_fp16: tuple[str, ...] = ()
    """I/O tensors that are float16 in every lower precision: bfloat16 has too few digits for 256 levels."""
    deep: bool = True
    """Whether it is a network, in which rounding errors grow, or a handful of element-wise operations."""
    parity_lengths: tuple[int, ...] = (1,)
    """Lengths of the varying axis at which parity is checked. The U-Net costs 4 TFLOP a batch entry at full size."""


def _unet_inputs(spec: ModelSpec, module: nn.Module, batch: int) -> dict[str, NDArray[Any]]:
    channels = module.get_submodule("unet.conv_in").in_channels
    size = (spec.frames, spec.latent, spec.latent)
    return {
        "sample": named_noise("parity.sample", (batch, int(str(channels)), *size), 0),
        "timestep": np.array([481.0], dtype=np.float32),
        "encoder_hidden_states": named_noise("parity.audio", (batch, spec.frames, spec.tokens, spec.audio_dim), 0),
    }


def in_halves(feed: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """A feed of the U-Net as guidance makes it: one picture for all of its batch, and sound for the last alone."""
    sample, audio = feed["sample"], feed["encoder_hidden_states"].copy()
    audio[:-1] = 0
    return feed | {"sample": sample[:1].repeat(len(sample), 0), "encoder_hidden_states": audio}


def _shallow_inputs(spec: ModelSpec, module: nn.Module, batch: int) -> dict[str, NDArray[Any]]:
    width = module.get_submodule("unet.conv_in").out_channels
    deep = (batch, spec.frames, int(str(width)), spec.latent, spec.latent)
    return _unet_inputs(spec, module, batch) | {"deep_features": named_noise("parity.deep", deep, 0)}


def _step_inputs(spec: ModelSpec, module: nn.Module, batch: int) -> dict[str, NDArray[Any]]:
    del module
    size = (spec.frames, spec.latent, spec.latent)
    return {
        "noise_pred": named_noise("parity.noise_pred", (batch, 4, *size), 0),
        "latents": named_noise("parity.latents", (1, 4, *size), 0),
        "previous": named_noise("parity.previous", (1, 4, *size), 0),
        "conditioning": named_noise("parity.conditioning", (1, 9, *size), 0),
        "coefficients": np.array([1.01, -0.12, 0.03, 1.3, -0.8], dtype=np.float32),
        "guidance": np.array([1.5], dtype=np.float32),
        "kept": named_noise("parity.kept", (1, 5, *size), 0),
    }


def _faces(spec: ModelSpec, frames: int) -> NDArray[np.uint8]:
    smooth = named_noise("parity.faces", (frames, spec.resolution // 16, spec.resolution // 16, 3), 0)
    return np.clip(smooth.repeat(16, 1).repeat(16, 2) * 50 + 127, 0, 255).astype(np.uint8)


def _encoder_inputs(spec: ModelSpec, module: nn.Module, frames: int) -> dict[str, NDArray[Any]]:
    del module
    noise = named_noise("parity.vae_noise", (2, frames, 4, spec.latent, spec.latent), 0)
    return {"faces": _faces(spec, frames), "noise": noise}


def _decoder_inputs(spec: ModelSpec, module: nn.Module, frames: int) -> dict[str, NDArray[Any]]:
    del module
    latents = named_noise("parity.vae_latents", (1, 4, frames, spec.latent, spec.latent), 0)
    return {"latents": latents, "faces": _faces(spec, frames)}


def _audio_inputs(spec: ModelSpec, module: nn.Module, segments: int) -> dict[str, NDArray[Any]]:
    del spec, module
    return {"mel": np.clip(named_noise("parity.mel", (segments, 80, 3000), 0) * 0.4, -1, 1.5)}


def _mask(checkpoint: Checkpoint) -> torch.Tensor:
    return torch.from_numpy(checkpoint.mask())


GRAPHS: dict[str, GraphSpec] = {
    spec.name: spec
    for spec in (
        GraphSpec(
            name="audio_encoder",
            build=lambda checkpoint: modules.AudioEncoderGraph(checkpoint.audio_encoder()),
            example_inputs=_audio_inputs,
            outputs=("hidden_states",),
            axis="n",
            varying={"mel": 0, "hidden_states": 0},
            free_axis_after_trace=True,
        ),
        GraphSpec(
            name="vae_encoder",
            build=lambda checkpoint: modules.VaeEncoderGraph(checkpoint.vae(), _mask(checkpoint)),
            example_inputs=_encoder_inputs,
            outputs=("conditioning", "moments"),
            axis="F",
            varying={"faces": 0, "noise": 1, "conditioning": 2, "moments": 0},
            free_axis_after_trace=True,
            graph_dtype_tensors=("conditioning",),
        ),
        GraphSpec(
            name="unet",
            build=lambda checkpoint: modules.UNetGraph(checkpoint.unet()),
            example_inputs=_unet_inputs,
            outputs=("noise_pred", "deep_features"),
            axis="b",
            varying={"sample": 0, "encoder_hidden_states": 0, "noise_pred": 0, "deep_features": 0},
            free_axis_after_trace=True,
            graph_dtype_tensors=("sample", "encoder_hidden_states", "noise_pred", "deep_features"),
        ),
        GraphSpec(
            name="unet_shallow",
            build=lambda checkpoint: modules.UNetShallowGraph(checkpoint.unet()),
            example_inputs=_shallow_inputs,
            outputs=("noise_pred",),
            axis="b",
            varying={"sample": 0, "encoder_hidden_states": 0, "deep_features": 0, "noise_pred": 0},
            free_axis_after_trace=True,
            graph_dtype_tensors=("sample", "encoder_hidden_states", "deep_features", "noise_pred"),
            parity_lengths=(1, 2),
        ),
        GraphSpec(
            name="step",
            build=lambda _: modules.StepGraph(),
            example_inputs=_step_inputs,
            outputs=("latents_out", "previous_out", "sample"),
            axis="b",
            varying={"noise_pred": 0, "sample": 0},
            graph_dtype_tensors=("noise_pred", "conditioning", "sample"),
            deep=False,
            parity_lengths=(1, 2),
        ),
        GraphSpec(
            name="vae_decoder",
            build=lambda checkpoint: modules.VaeDecoderGraph(checkpoint.vae(), _mask(checkpoint)),
            example_inputs=_decoder_inputs,
            outputs=("faces_out", "pixels", "nonfinite"),
            axis="F",
            varying={"latents": 2, "faces": 0, "faces_out": 0, "pixels": 0, "nonfinite": 0},
            free_axis_after_trace=True,
            always_fp16=("pixels",),
        ),
    )
}
"""Graphs in the order of export: `unet` before `unet_shallow`, which shares its weights."""


def sync_specs(network: StableSyncNet) -> tuple[GraphSpec, GraphSpec]:
    """StableSyncNet's two towers, one look at a time."""
    frames, side = network.config.frames, network.config.resolution

    def faces(_: ModelSpec, __: nn.Module, ___: int) -> dict[str, NDArray[Any]]:
        return {
            "faces": np.clip(named_noise("parity.looks", (frames, side, side, 3), 0) * 50 + 127, 0, 255).astype(
                np.uint8
            )
        }

    def mel(_: ModelSpec, __: nn.Module, ___: int) -> dict[str, NDArray[Any]]:
        return {"mel": np.clip(named_noise("parity.sync_mel", (1, 1, MELS, MEL_COLUMNS), 0), -4, 4)}

    lips, sound = SYNC_GRAPHS
    return (
        GraphSpec(
            name=lips,
            build=lambda _: modules.SyncLipsGraph(network),
            example_inputs=faces,
            outputs=("seen",),
            axis=None,
            varying={},
        ),
        GraphSpec(
            name=sound,
            build=lambda _: modules.SyncSoundGraph(network),
            example_inputs=mel,
            outputs=("heard",),
            axis=None,
            varying={},
        ),
    )
