"""What a checkpoint makes of a clip, through the runtime's own path: a picture, a video, and numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

import lsx
from lsx.bundle.bundle import Bundle
from lsx.bundle.manifest import SCHEMA_VERSION, FaceModels, Manifest, ModelEntry
from lsx.core.graph_names import FACE_GRAPHS
from lsx.core.sampling import SamplingOptions
from lsx.core.tensors import Frame
from lsx.engines.loading import load_engines
from lsx.engines.registry import EngineOptions
from lsx.errors import OutputError
from lsx.faces.alignment import TEMPLATE, Face, crop_size
from lsx.graphs.checkpoint_engines import checkpoint_engines
from lsx.media.comparison import LAYOUTS
from lsx.media.encoding import EncodeOptions
from lsx.media.given import open_sound, open_video
from lsx.models.checkpoint import Checkpoint
from lsx.models.checkpoint_files import CheckpointFiles
from lsx.runtime.lipsync import LipSync
from lsx.runtime.run_files import writer_like
from lsx.training.shards import DataSet, SegmentRow

__all__ = ["ValidationClip"]

_SECONDS_SHOWN = 4
_COLUMNS = 8  # frames of the strip


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ValidationClip:
    """Frames and sound to look at again and again."""

    frames: Sequence[Frame]
    samples: NDArray[np.int16]
    bundle: Bundle | None = None
    """The bundle whose face models look for the face; None where the frames are aligned crops."""

    @classmethod
    def of_segment(cls, data: DataSet, row: SegmentRow) -> ValidationClip:
        """A segment of a data set: its faces as frames, in the shape that alignment cut them out in."""
        count = min(row.frames, 25 * _SECONDS_SHOWN)
        size = crop_size(data.info.resolution)
        faces = data.faces(row, range(count))
        frames = [np.asarray(cv2.resize(face, size, interpolation=cv2.INTER_CUBIC)) for face in faces]
        return cls(frames=frames, samples=data.samples(row)[: count * 640])

    @classmethod
    def of_files(cls, video: Path, audio: Path, bundle: Bundle) -> ValidationClip:
        """A video and a sound of its own. Raises MediaError, UsageError."""
        reader, sound = open_video(video), open_sound(audio)
        count = min(25 * _SECONDS_SHOWN, -(-len(sound.samples()) // 640))
        frames = [frame for _, (_, frame) in zip(range(count), reader.ping_pong(count), strict=False)]
        return cls(frames=frames, samples=_int16(sound.samples())[: count * 640], bundle=bundle)

    def render(self, checkpoint: Path, output: Path, sampling: SamplingOptions) -> Mapping[str, float]:
        """Write `strip.png` and `clip.mp4` into the folder `output`: original above or beside what it makes of it.

        Returns the mean difference in levels, inside the whole frame. Raises OutputError, EngineError.
        """
        loaded = Checkpoint(CheckpointFiles.in_folder(checkpoint))
        detector = None if self.bundle is not None else _aligned(loaded.spec.resolution)
        lipsync = self._opened(loaded, checkpoint)
        with (
            lipsync,
            closing(lipsync.stream(self.frames, self.samples, len(self.frames), sampling, detector=detector)) as stream,
        ):
            results = list(stream)
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{output}: cannot be written: {error.strerror or error}") from error
        self._show(output, results)
        apart = [np.abs(a.astype(int) - b).mean() for a, b in zip(results, self.frames, strict=True)]
        return {"difference": float(np.mean(apart))}

    def _opened(self, checkpoint: Checkpoint, where: Path) -> LipSync:
        faces = FaceModels(family="mediapipe", source={}) if self.bundle is None else self.bundle.manifest.faces
        engines = checkpoint_engines(checkpoint)
        if self.bundle is not None:
            engines |= load_engines(self.bundle, "onnxruntime", FACE_GRAPHS, EngineOptions(threads=1))
        return LipSync(Bundle(where, _manifest(checkpoint, where, faces)), engines, "torch")

    def _show(self, output: Path, results: Sequence[Frame]) -> None:
        twice = [np.repeat(np.repeat(np.stack(pair), 2, 1), 2, 2) for pair in zip(results, self.frames, strict=True)]
        chosen = np.linspace(0, len(results) - 1, min(_COLUMNS, len(results))).astype(int)
        rows = [np.concatenate([twice[i][row] for i in chosen], axis=1) for row in (1, 0)]
        path = output / "strip.png"
        if not cv2.imwrite(str(path), np.concatenate(rows)[..., ::-1]):
            raise OutputError(f"{path}: cannot be written")
        source, sound = open_video(np.stack([pair[0] for pair in twice])), open_sound(self.samples)
        layout = LAYOUTS["side"]
        with writer_like(output / "clip.mp4", source, EncodeOptions(), sound, layout) as writer:
            for number, (result, original) in enumerate(twice):
                writer.write(layout.draw(original, result, number))


def _aligned(resolution: int) -> Any:
    """A detector for frames that are aligned crops already: the face is where alignment puts it."""
    face = Face(points=TEMPLATE * (resolution / 256))
    return lambda _frame: face


def _int16(samples: NDArray[Any]) -> NDArray[np.int16]:
    return samples if samples.dtype == np.int16 else np.round(samples * 32767).astype(np.int16)


def _manifest(checkpoint: Checkpoint, where: Path, faces: FaceModels) -> Manifest:
    """What a bundle of this checkpoint would say of the model, without graphs."""
    spec = {name: getattr(checkpoint.spec, name) for name in type(checkpoint.spec).__dataclass_fields__}
    model = ModelEntry(**spec, checkpoint={}, source=str(where), mask="")
    return Manifest(
        schema_version=SCHEMA_VERSION,
        lsx_version=lsx.__version__,
        created="",
        precision="fp32",
        model=model,
        faces=faces,
        graphs={},
    )
