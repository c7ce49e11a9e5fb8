"""Feeds out of the reference's own denoising loop: what each graph really gets, at which step, in which half."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from lsx.calibration.clips import Clip, Segment
from lsx.core.graph_names import LOOP_GRAPHS
from lsx.core.model_spec import ModelSpec
from lsx.core.noise import named_noise
from lsx.core.sampling import SamplingOptions
from lsx.denoising.chunk_program import chunk_program
from lsx.denoising.chunk_runner import ChunkRunner, seeded_noise
from lsx.denoising.executor import HostExecutor, Only, io_of
from lsx.denoising.schedule import schedule
from lsx.engines.engine import Array, Engine, FeedDict
from lsx.errors import CalibrationError
from lsx.faces.alignment import Aligner, crop_face
from lsx.media.audio_reader import SoundReader
from lsx.media.video_reader import VideoReader
from lsx.runtime.audio_features import AudioTokens

__all__ = ["FEEDS_A_LOOP", "CaptureSpec", "Recorded", "Recorder", "plan_captures"]

FEEDS_A_LOOP = 4
"""Feeds of a graph that are taken from one denoising loop: more loops show more faces and sounds."""

_DECODER_FRAMES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptureSpec:
    """One 16-frame chunk that is denoised, and which of its steps are recorded in which half."""

    number: int
    clip: int
    """Index of the clip."""
    segment: int
    """Index among the clip's kept segments."""
    offset: int
    """First frame, counted from the segment's."""
    steps: Mapping[int, str]
    """Denoising step to guidance half, for `unet` and `unet_shallow`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A feed that was written."""

    file: str
    graph: str
    step: int
    half: str


def plan_captures(clips: Sequence[Clip], samples: int, options: SamplingOptions, frames: int) -> list[CaptureSpec]:
    """Plan the chunks to record: `samples` samples of the U-Net over all clips, strata of the time steps, both halves.

    Clips take turns, each with one segment after the other; the place in a segment is drawn from the seed. Of each
    loop's full steps FEEDS_A_LOOP are taken, a little later from loop to loop, and so of its shallow ones.

    Raises CalibrationError when no clip has a kept segment.
    """
    turns = max((len(clip.kept) for clip in clips), default=0)
    order = [(c, s) for s in range(turns) for c, clip in enumerate(clips) if s < len(clip.kept)]
    if not order:
        raise CalibrationError("no segment was kept: nothing to calibrate on. Give clips with one large, steady face")
    graphs = [step.graph for step in schedule(options)]
    loops = -(-samples // min(FEEDS_A_LOOP, graphs.count("unet")))
    captures = []
    for number in range(loops):
        clip, segment = order[number % len(order)]
        due = samples // loops + (number < samples % loops)
        place = kept_length(clips[clip].kept[segment]) - frames
        draw = float(np.clip(named_noise(f"calibration.{number}", (1,), options.seed)[0] / 4 + 0.5, 0, 1))
        steps: dict[int, str] = {}
        for graph in ("unet", "unet_shallow"):
            having = [index for index, name in enumerate(graphs) if name == graph]
            count = min(due, len(having))
            for j in range(count):
                stratum = (j + (number + 0.5) / loops) / count
                half = "conditional" if options.guidance_batch == 1 or (j + number) % 2 == 0 else "unconditional"
                steps[having[int(stratum * len(having))]] = half
        captures.append(CaptureSpec(number=number, clip=clip, segment=segment, offset=round(draw * place), steps=steps))
    return captures


def kept_length(segment: Segment) -> int:
    """Frames of a segment."""
    return segment.stop - segment.start


class _Recording(Engine):
    """An engine that shows what it is given."""

    def __init__(self, engine: Engine, show: Callable[[str, FeedDict], None]) -> None:
        super().__init__(engine.graph, list(engine.inputs.values()), list(engine.outputs.values()))
        self._engine, self._show = engine, show

    @property
    def description(self) -> str:
        return self._engine.description

    def run(self, feed_dict: FeedDict) -> dict[str, Array]:
        self._show(self.graph, feed_dict)
        return self._engine.run(feed_dict)

    def close(self) -> None:
        """The engine is another's."""


class Recorder:
    """Runs the loop of one schedule on the reference's engines and writes feeds."""

    def __init__(self, engines: Mapping[str, Engine], model: ModelSpec, options: SamplingOptions) -> None:
        self._model, self._options = model, options
        self._audio = engines["audio_encoder"]
        loop: dict[str, Engine] = {name: _Recording(engines[name], self._seen) for name in LOOP_GRAPHS}
        self._executor = HostExecutor(chunk_program(model, io_of(loop), options), loop)
        self._step = 0
        self._capture: CaptureSpec | None = None
        self._folder = Path()
        self._written: list[Recorded] = []

    def record(self, capture: CaptureSpec, file: Path, segment: Segment, folder: Path) -> list[Recorded]:
        """Denoise one chunk and write its feeds into `folder`. Raises MediaError."""
        faces, tokens = self.inputs(file, segment, capture.offset)
        self._capture, self._folder, self._step, self._written = capture, folder, 0, []
        noise = seeded_noise(self._options.seed)
        runner = ChunkRunner(
            Only(self._executor),
            self._model,
            lambda name, shape: noise(f"{capture.number}.{name}", shape),
            self._options.guidance,
        )
        runner.result(runner.submit(faces, tokens, 0))
        return self._written

    def inputs(self, file: Path, segment: Segment, offset: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Aligned faces uint8 [F, H, W, 3] and tokens float32 [F, S, D] of a chunk at `offset` in the segment."""
        aligner = Aligner(self._model.resolution)
        affines = [aligner.affine(points) for points in segment.points_array()[: offset + self._model.frames]]
        start = segment.start + offset
        frames = VideoReader(file).frames(start, start + self._model.frames)
        faces = [crop_face(f, a, self._model.resolution) for f, a in zip(frames, affines[offset:], strict=True)]
        tokens = AudioTokens(self._audio, SoundReader(file).samples(), self._model)
        return np.stack(faces), tokens.tokens(range(start, start + self._model.frames))

    def _seen(self, graph: str, feed: FeedDict) -> None:
        assert self._capture is not None  # noqa: S101
        if graph in ("unet", "unet_shallow"):
            half = self._capture.steps.get(self._step)
            if half is not None:
                row = slice(-1, None) if half == "conditional" else slice(0, 1)
                self._write(graph, {n: a if n == "timestep" else a[row] for n, a in feed.items()}, half)
            self._step += 1
        elif graph == "vae_decoder" and not any(w.graph == graph for w in self._written):
            frames = (
                np.linspace(0, len(feed["faces"]) - 1, min(_DECODER_FRAMES, len(feed["faces"]))).round().astype(int)
            )
            self._write(graph, {"latents": feed["latents"][:, :, frames], "faces": feed["faces"][frames]}, "none")

    def _write(self, graph: str, feed: Mapping[str, Array], half: str) -> None:
        assert self._capture is not None  # noqa: S101
        name = f"{graph}.{self._capture.number:03}.{self._step:03}.safetensors"
        # Half the size of the one large tensor; a deployed loop hands it on in float16 too.
        arrays = {n: np.ascontiguousarray(a, np.float16 if n == "deep_features" else None) for n, a in feed.items()}
        save_file(arrays, self._folder / name)
        self._written.append(Recorded(file=name, graph=graph, step=self._step, half=half))
