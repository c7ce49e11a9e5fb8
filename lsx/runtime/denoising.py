"""One 16-frame call: faces and tokens in, lip-synced faces out, every number made by a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsx.engines.engine import Array, Engine
from lsx.errors import EngineError
from lsx.runtime.schedule import IDENTITY, schedule
from lsx.seeded import normal
from lsx.specs import ModelSpec, SampleOptions

__all__ = ["LOOP_GRAPHS", "Denoiser", "NoiseSource", "seeded_noise"]

LOOP_GRAPHS = ("vae_encoder", "unet", "unet_shallow", "step", "vae_decoder")

NoiseSource = Callable[[str, tuple[int, ...]], NDArray[np.float32]]
"""(name, shape) to standard normal float32 numbers. Names: latents, masked.<call>, reference.<call>."""


def seeded_noise(seed: int) -> NoiseSource:
    """Noise that depends on the seed and the array's name alone."""
    return lambda name, shape: normal(f"noise.{name}", shape, seed)


class Denoiser:
    """Runs calls of `model.frames` frames on the loop's engines. Not thread-safe: one call at a time."""

    def __init__(
        self, engines: Mapping[str, Engine], model: ModelSpec, options: SampleOptions, noise: NoiseSource
    ) -> None:
        self._engines = engines
        self._model = model
        self._options = options
        self._noise = noise
        self._schedule = schedule(options)
        # The original repeats one frame's noise over all frames of the whole video.
        first = self._draw("latents", (1, 4, 1, model.latent, model.latent))
        self._latents = np.repeat(first, model.frames, axis=2)

    def _draw(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        noise = np.asarray(self._noise(name, shape), dtype=np.float32)
        if noise.shape != shape:
            raise EngineError(f"the noise source gave {list(noise.shape)} for {name}; it must give {list(shape)}")
        return noise

    def encode(self, faces: NDArray[np.uint8], call: int) -> Array:
        """Conditioning [1, 9, F, h, w], in the graph's dtype, of aligned faces uint8 [F, H, W, 3]."""
        shape = (self._model.frames, 4, self._model.latent, self._model.latent)
        noise = np.stack([self._draw(f"masked.{call}", shape), self._draw(f"reference.{call}", shape)])
        engine = self._engines["vae_encoder"]
        parts = [engine.run({"faces": faces[s], "noise": noise[:, s]})["conditioning"] for s in self._vae_slices()]
        return np.concatenate(parts, axis=2)

    def _vae_slices(self) -> list[slice]:
        """The call's frames, as many at a time as the VAE takes."""
        size = self._model.vae_frames
        return [slice(start, start + size) for start in range(0, self._model.frames, size)]

    def denoise(
        self,
        conditioning: Array,
        tokens: NDArray[np.float32],
        latents: NDArray[np.float32] | None = None,
    ) -> Iterator[NDArray[np.float32]]:
        """Latents float32 [1, 4, F, h, w] after every step, for audio tokens float32 [F, S, D]."""
        batch = self._options.guidance_batch
        audio = tokens[None] if batch == 1 else np.stack([np.zeros_like(tokens), tokens])
        unet, shallow, step = (self._engines[name] for name in ("unet", "unet_shallow", "step"))
        audio = audio.astype(unet.numpy_dtype(unet.inputs["encoder_hidden_states"]))
        guidance = np.array([self._options.guidance], dtype=np.float32)
        start = self._latents if latents is None else latents
        noise_spec = step.inputs["noise_pred"]
        shape = (batch, *start.shape[1:])
        state: dict[str, Array] = {"latents_out": start, "previous_out": np.zeros_like(start)}
        noise = np.zeros(shape, dtype=step.numpy_dtype(noise_spec))
        deep: Array | None = None

        def advance(coefficients: NDArray[np.float32]) -> dict[str, Array]:
            feed = {
                "noise_pred": noise,
                "latents": state["latents_out"],
                "previous": state["previous_out"],
                "conditioning": conditioning,
                "coefficients": coefficients,
                "guidance": guidance,
            }
            return step.run(feed)

        state = advance(IDENTITY)
        for item in self._schedule:
            feed = {"sample": state["sample"], "timestep": item.timestep, "encoder_hidden_states": audio}
            if item.graph == "unet":
                outputs = unet.run(feed)
                noise, deep = outputs["noise_pred"], outputs["deep_features"]
            else:
                assert deep is not None  # noqa: S101  (the first step of a schedule is a full one)
                noise = shallow.run(feed | {"deep_features": deep})["noise_pred"]
            state = advance(item.coefficients)
            yield state["latents_out"]

    def decode(self, latents: NDArray[np.float32], faces: NDArray[np.uint8]) -> NDArray[np.floating[Any]]:
        """Lip-synced faces in levels, neither rounded nor clipped, [F, H, W, 3]: `faces` outside the mask."""
        if not np.isfinite(latents).all():
            raise EngineError(
                "the denoised latents are not finite (NaN or infinity): this precision overflows on this clip. "
                "Export it with --precision fp32 or bf16"
            )
        engine = self._engines["vae_decoder"]
        parts = [engine.run({"latents": latents[:, :, s], "faces": faces[s]})["pixels"] for s in self._vae_slices()]
        return np.concatenate(parts)
