"""Chunks of the U-Net on an executor: faces and tokens in, lip-synced faces out, every number made by a graph."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lsx.core.cancel import CancelToken
from lsx.core.model_spec import ModelSpec
from lsx.core.noise import named_noise
from lsx.core.threaded_stages import Stopped
from lsx.denoising.chunk_program import ProgramInputs
from lsx.denoising.executor import Lender, Results, Submission
from lsx.denoising.moments import conditioning_of
from lsx.engines.engine import Array
from lsx.errors import EngineError, NonFiniteOutput, OutOfDeviceMemory

__all__ = [
    "ChunkRunner",
    "Neighbour",
    "NoiseSource",
    "PendingChunk",
    "audio_batch",
    "kept_latents",
    "repeated_latents",
    "seeded_noise",
]

NoiseSource = Callable[[str, tuple[int, ...]], NDArray[np.float32]]
"""(name, shape) to standard normal float32 numbers. Names: latents, masked.<chunk>, reference.<chunk>."""


def seeded_noise(seed: int) -> NoiseSource:
    """Noise that depends on the seed and the array's name alone."""
    return lambda name, shape: named_noise(f"noise.{name}", shape, seed)


def audio_batch(tokens: NDArray[np.float32], batch: int) -> NDArray[np.float32]:
    """[b, F, S, D] of tokens [F, S, D]: with guidance the unconditional half, all zeros, comes first."""
    return tokens[None] if batch == 1 else np.stack([np.zeros_like(tokens), tokens])


def repeated_latents(noise: NDArray[np.float32], frames: int) -> NDArray[np.float32]:
    """One frame's noise [1, 4, 1, h, w] for all frames of a chunk: the original repeats it over the whole video."""
    return np.repeat(noise, frames, axis=2)


@dataclass(slots=True, eq=False)
class PendingChunk:
    """A chunk that a ChunkRunner has started: what it is known by, to nobody but that ChunkRunner."""

    inputs: dict[str, Array]
    submission: Submission
    arrays: dict[str, Array] | None = None
    """What it made, once that was waited for; `steps_out` stays here for the chunk after it."""
    error: Exception | None = None
    """Why it made nothing."""
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True, slots=True, eq=False)
class Neighbour:
    """The chunk before, whose latents a chunk goes on from."""

    chunk: PendingChunk
    shift: int
    """Frames by which the chunk begins after it, 1 to F - 1."""
    share: NDArray[np.float32]
    """Share of its latents in each frame of the chunk, 0..1: [F]; 0 in the last `shift`, which it does not have."""


def kept_latents(steps: NDArray[np.float32], after: Neighbour) -> NDArray[np.float32]:
    """What a chunk keeps of the one before, float32 [steps + 1, 5, F, h, w]: its latents, and their share.

    steps : the latents of the one before, float32 [steps + 1, 4, F, h, w].
    """
    count, channels, frames, *side = steps.shape
    kept = np.zeros((count, channels + 1, frames, *side), np.float32)
    kept[:, :-1, : frames - after.shift] = steps[:, :, after.shift :]
    kept[:, -1] = after.share[:, None, None]
    return kept


def _unknown(_: Submission) -> Results:
    raise EngineError("a run asked for what an earlier one made. Please report this")


class ChunkRunner:
    """Chunks of one run. It owns the run's noise, its pending results and its stop; the executor is lent by the chunk.

    `submit` and `result` may come from two threads.
    """

    def __init__(
        self,
        lender: Lender,
        model: ModelSpec,
        noise: NoiseSource,
        guidance: float = 1.5,
        fallback: Callable[[], Lender | None] = lambda: None,
        mask: NDArray[np.float32] | None = None,
        kept_steps: int = 0,
    ) -> None:
        """fallback : lends the executor that a chunk whose result is not finite is done again with, once; or None.

        mask : what of a latent is kept, float32 [h, w], where the lenders' programs take `conditioning`; every chunk
        then comes with its moments.

        kept_steps : denoising steps of the schedule, where chunks go on from the latents of the one before; else 0.
        """
        self._lender = lender
        self._fallback = fallback
        self.position = (0, 0)
        """Number of the chunk that was submitted last, and how many of its denoising steps are known to be done."""
        self._stop = CancelToken()
        self._lock = threading.Lock()
        self._pending: dict[PendingChunk, None] = {}
        self._seconds: dict[str, float] = {}
        self.waited = 0.0
        """Seconds that this run waited for its turns."""
        self.submitted = 0
        """Chunks that were submitted."""
        self.repeated = 0
        """Chunks that were done again."""
        self._guidance = np.array([guidance], dtype=np.float32)
        self._model = model
        self._noise = noise
        self._mask = mask
        self._kept_steps = kept_steps
        self._batch = 2 if guidance > 1 else 1
        first = self._draw("latents", (1, 4, 1, model.latent, model.latent))
        self._latents = repeated_latents(first, model.frames)

    @property
    def seconds(self) -> dict[str, float]:
        """Time by phase (VAE encode, denoise, VAE decode) of all chunks whose result was taken."""
        with self._lock:
            return dict(self._seconds)

    @property
    def keeps(self) -> bool:
        """Whether chunks go on from the latents of the one before; not where the memory for that was not there."""
        return self._kept_steps > 0

    def _given(self) -> ProgramInputs:
        return ProgramInputs(conditioning=self._mask is not None, kept=self.keeps)

    def _draw(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        noise = np.asarray(self._noise(name, shape), dtype=np.float32)
        if noise.shape != shape:
            raise EngineError(f"the noise source gave {list(noise.shape)} for {name}; it must give {list(shape)}")
        return noise

    def submit(
        self,
        faces: NDArray[np.uint8],
        tokens: NDArray[np.float32],
        chunk: int,
        moments: NDArray[np.float32] | None = None,
        after: Neighbour | None = None,
    ) -> PendingChunk:
        """Start a chunk on aligned faces uint8 [F, H, W, 3] and audio tokens float32 [F, S, D].

        moments : of the faces, float32 [F, 2, 2, 4, h, w], where they were encoded before. after : a chunk of this
        run that this one's latents go on from where `keeps`; it is waited for.
        Raises EngineError; Stopped after `stop`.
        """
        shape = (self._model.frames, 4, self._model.latent, self._model.latent)
        inputs: dict[str, Array] = {
            "faces": faces,
            "latents": self._latents,
            "guidance": self._guidance,
            "encoder_hidden_states": audio_batch(tokens, self._batch),
        }
        noise = np.stack([self._draw(f"masked.{chunk}", shape), self._draw(f"reference.{chunk}", shape)])
        if self._mask is None:
            inputs["noise"] = noise
        elif moments is not None:
            inputs["conditioning"] = conditioning_of(moments, noise, self._mask)
        else:
            raise EngineError(f"chunk {chunk} came without moments. Please report this")
        if self.keeps:
            inputs |= self._kept(after)
        self.position = (chunk, 0)
        self.submitted += 1
        try:
            submission = self._submitted(self._lender, inputs, chunk)
        except OutOfDeviceMemory:
            if not self.keeps:
                raise
            self._kept_steps = 0
            inputs = {name: array for name, array in inputs.items() if name != "kept"}
            submission = self._submitted(self._lender, inputs, chunk)
        pending = PendingChunk(inputs, submission)
        with self._lock:
            self._pending[pending] = None
            if self._stop.cancelled:
                pending.submission.abandoned = True
        return pending

    def earlier(self, steps: NDArray[np.float32]) -> PendingChunk:
        """A chunk that an earlier run made, by its latents after each step, for others to go on from."""
        return PendingChunk({}, Submission(self, _unknown), {"steps_out": steps})

    def _kept(self, after: Neighbour | None) -> dict[str, Array]:
        if after is not None and (steps := self._arrays_of(after.chunk).get("steps_out")) is not None:
            return {"kept": kept_latents(steps, after)}
        side = self._model.latent
        return {"kept": np.zeros((self._kept_steps + 1, 5, self._model.frames, side, side), np.float32)}

    def _submitted(self, lender: Lender, inputs: Mapping[str, Array], chunk: int | None = None) -> Submission:
        def on_step(steps: int) -> None:
            if chunk is not None:
                self.position = (chunk, steps)

        start = time.perf_counter()
        with lender.lent(self._stop, self._given()) as executor:
            self.waited += time.perf_counter() - start
            return executor.submit(inputs, self, self._stop, on_step)

    def result(self, pending: PendingChunk) -> dict[str, Array]:
        """A chunk's `pixels` [F, H, W, 3] (levels, neither rounded nor clipped) and `latents_out`; arrays of its own.

        Raises NonFiniteOutput when the chunk made NaN or infinite values, in the fallback precision too; EngineError
        for a chunk that this did not submit; Stopped after `stop`.
        """
        with self._lock:
            known = pending in self._pending
            self._pending.pop(pending, None)
        if not known and not self._stop.cancelled:
            raise EngineError("a run asked for a chunk that it did not submit; it was not given. Please report this")
        arrays = self._arrays_of(pending)
        pending.arrays = {name: array for name, array in arrays.items() if name == "steps_out"}
        return arrays

    def _arrays_of(self, pending: PendingChunk) -> dict[str, Array]:
        """What a chunk made, waited for by whoever comes first. Raises what `result` does, to each of them."""
        with pending.lock:
            if self._stop.cancelled:
                raise Stopped
            if pending.error is not None:
                raise pending.error
            if pending.arrays is None:
                try:
                    pending.arrays = self._finished(pending)
                except Exception as error:
                    pending.error = error
                    raise
            return pending.arrays

    def _finished(self, pending: PendingChunk) -> dict[str, Array]:
        arrays = self._taken(pending.submission, self._lender)
        fallback = self._fallback() if arrays["nonfinite"].any() else None
        if fallback is not None:
            self.repeated += 1
            arrays = self._taken(self._submitted(fallback, pending.inputs), fallback)
        bad = int(np.count_nonzero(arrays["nonfinite"]))
        if bad:
            raise NonFiniteOutput(
                f"{bad} of {self._model.frames} decoded faces have NaN or infinite values: this precision overflows "
                "on this clip. Export it with --precision fp32 or bf16, or with one of them as --fallback"
            )
        return arrays

    def _taken(self, submission: Submission, lender: Lender) -> dict[str, Array]:
        results = submission.result(self)
        lender.charge(sum(results.seconds.values()))
        with self._lock:
            for phase, taken in results.seconds.items():
                self._seconds[phase] = self._seconds.get(phase, 0.0) + taken
        return results.arrays

    def stop(self) -> None:
        """Give up what is pending, and let a `submit` that waits for its turn raise Stopped; from any thread."""
        self._stop.cancel()
        with self._lock:
            for pending in self._pending:
                pending.submission.abandoned = True
