"""Calls of the U-Net on an executor: faces and tokens in, lip-synced faces out, every number made by a graph."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lsx.engines.engine import Array
from lsx.errors import EngineError, NonFiniteOutput
from lsx.runtime.executor import CallResult, Executor
from lsx.seeded import normal
from lsx.specs import ModelSpec

__all__ = ["Denoiser", "NoiseSource", "audio_batch", "repeated_latents", "seeded_noise"]

NoiseSource = Callable[[str, tuple[int, ...]], NDArray[np.float32]]
"""(name, shape) to standard normal float32 numbers. Names: latents, masked.<call>, reference.<call>."""


def seeded_noise(seed: int) -> NoiseSource:
    """Noise that depends on the seed and the array's name alone."""
    return lambda name, shape: normal(f"noise.{name}", shape, seed)


def audio_batch(tokens: NDArray[np.float32], batch: int) -> NDArray[np.float32]:
    """[b, F, S, D] of tokens [F, S, D]: with guidance the unconditional half, all zeros, comes first."""
    return tokens[None] if batch == 1 else np.stack([np.zeros_like(tokens), tokens])


def repeated_latents(noise: NDArray[np.float32], frames: int) -> NDArray[np.float32]:
    """One frame's noise [1, 4, 1, h, w] for all frames of a call: the original repeats it over the whole video."""
    return np.repeat(noise, frames, axis=2)


class Denoiser:
    """Calls of one clip. `submit` and `result` may come from two threads; results come in the order of the calls."""

    def __init__(
        self,
        executor: Executor,
        model: ModelSpec,
        noise: NoiseSource,
        guidance: float = 1.5,
        wider: Callable[[], Executor | None] = lambda: None,
    ) -> None:
        """wider : gives the executor that a call is done again with, once, when its result is not finite; or None."""
        self._executor = executor
        self._wider = wider
        self._inputs: deque[dict[str, Array]] = deque()
        self.repeated = 0
        """Calls that were done again."""
        self._guidance = np.array([guidance], dtype=np.float32)
        self._model = model
        self._noise = noise
        self._batch = executor.program.buffers["encoder_hidden_states"].shape[0]
        first = self._draw("latents", (1, 4, 1, model.latent, model.latent))
        self._latents = repeated_latents(first, model.frames)

    @property
    def seconds(self) -> dict[str, float]:
        """Time by phase (VAE encode, denoise, VAE decode) of all calls so far."""
        return dict(self._executor.seconds)

    def _draw(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        noise = np.asarray(self._noise(name, shape), dtype=np.float32)
        if noise.shape != shape:
            raise EngineError(f"the noise source gave {list(noise.shape)} for {name}; it must give {list(shape)}")
        return noise

    def submit(self, faces: NDArray[np.uint8], tokens: NDArray[np.float32], call: int) -> None:
        """Start a call on aligned faces uint8 [F, H, W, 3] and audio tokens float32 [F, S, D]."""
        shape = (self._model.frames, 4, self._model.latent, self._model.latent)
        inputs: dict[str, Array] = {
            "faces": faces,
            "noise": np.stack([self._draw(f"masked.{call}", shape), self._draw(f"reference.{call}", shape)]),
            "latents": self._latents,
            "guidance": self._guidance,
            "encoder_hidden_states": audio_batch(tokens, self._batch),
        }
        self._inputs.append(inputs)
        self._executor.submit(inputs)

    def result(self) -> CallResult:
        """The oldest call's `pixels` [F, H, W, 3] (levels, neither rounded nor clipped) and `latents_out`.

        Raises NonFiniteOutput when the call made NaN or infinite values, and again in the wider precision.
        """
        made, inputs = self._executor.result(), self._inputs.popleft()
        wider = self._wider() if made.arrays["nonfinite"].any() else None
        if wider is not None:
            made.release()
            self.repeated += 1
            wider.submit(inputs)
            made = wider.result()
        bad = int(np.count_nonzero(made.arrays["nonfinite"]))
        if bad:
            made.release()
            raise NonFiniteOutput(
                f"{bad} of {self._model.frames} decoded faces have NaN or infinite values: this precision overflows "
                "on this clip. Export it with --precision fp32 or bf16, or with one of them as --fallback"
            )
        return made

    def stop(self) -> None:
        """Let a `submit` that waits for room give up, from any thread."""
        self._executor.stop()
