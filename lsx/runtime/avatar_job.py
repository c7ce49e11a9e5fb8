"""A video to an avatar: what of it does not depend on the sound is computed once, and kept."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import lsx
from lsx.bundle.bundle import Bundle
from lsx.bundle.manifest import FileEntry
from lsx.core.atomic_files import check_replaceable, folder_beside, write_whole
from lsx.core.footage import FootageOptions
from lsx.core.graph_names import FACE_GRAPHS
from lsx.core.keywords import check_path
from lsx.core.model_spec import ModelSpec
from lsx.core.tensors import Frame
from lsx.core.threaded_stages import StageChain, StageTimes
from lsx.denoising.executor import vae_frames_of
from lsx.engines.engine import Engine
from lsx.engines.loading import AUTO, best_backend, opened_engines
from lsx.engines.registry import EngineOptions
from lsx.errors import BundleError, MediaError, OutputError
from lsx.faces.alignment import AlignedFace
from lsx.faces.avatar import Avatar, AvatarWriter
from lsx.faces.avatar_folder import AVATAR, is_avatar
from lsx.faces.avatar_manifest import AVATAR_SCHEMA, AvatarManifest, ProxyEntry, encoder_of
from lsx.faces.detector import FaceDetector, detector_threads
from lsx.faces.track_file import VideoIdentity
from lsx.media.audio_reader import SoundReader
from lsx.media.given import VideoInput, VideoSource, open_video
from lsx.media.lossless import LosslessWriter
from lsx.runtime.face_aligner import AlignedFrame, FaceAligner, FoundFaces
from lsx.runtime.face_choice import faces_for
from lsx.runtime.frame_pipeline import face_stages
from lsx.runtime.sync_agreement import sync_judge
from lsx.runtime.timeline import Timeline

__all__ = ["prepare_avatar"]


class _Encoder:
    """The VAE encoder's graph, asked for moments alone."""

    def __init__(self, engine: Engine, model: ModelSpec) -> None:
        self._engine = engine
        self.size = vae_frames_of([engine], model)
        """Faces that it takes at a time."""
        self._noise = np.zeros((2, self.size, 4, model.latent, model.latent), np.float32)
        self.mask = np.ones((model.latent, model.latent), np.float32)
        """The conditioning's mask, after the first faces."""

    def moments(self, crops: list[Frame]) -> NDArray[np.float32]:
        """The moments of at most `size` aligned faces: float32 [faces, 2, 2, 4, h, w]."""
        filled = np.stack([*crops, *[crops[-1]] * (self.size - len(crops))])
        outputs = self._engine.infer({"faces": filled, "noise": self._noise})
        self.mask = np.array(outputs["conditioning"][0, 0, 0], np.float32)
        return np.asarray(outputs["moments"][: len(crops)], np.float32)


def prepare_avatar(
    bundle: Bundle | Path | str,
    video: VideoInput,
    output: Path | str,
    *,
    backend: str = AUTO,
    engine: EngineOptions | None = None,
    start: float | str = 0.0,
    end: float | str | None = None,
    fps: str | float | Fraction = "25",
    speaker: str = "largest",
    faces: Path | str | None = None,
    proxy: bool = False,
    progress: Callable[[int, int], None] = lambda _, __: None,
) -> Avatar:
    """Keep what of a video does not depend on the sound, in the folder `output`, for any number of runs.

    Parameters
    ----------
    bundle : with the VAE encoder that the runs will have.
    video : as of LipSync.run. output : a folder, which appears when it is whole.
    backend, engine : what encodes, as of LipSync.open. Another one gives the same within its own rounding.
    start, end, fps, speaker, faces : as of FootageOptions. The runs then have these.
    proxy : keep the frames of the part, without loss, and not the video's file.
    progress : called with the frames that are done, and all; while all are looked at first, with none that is done.
        What it raises ends the preparation, of which nothing is left.

    Raises UsageError, BundleError, MediaError, FaceNotFound, OutputError, EngineError.

    Examples
    --------
    >>> from lsx import LipSync, prepare_avatar
    >>> avatar = prepare_avatar(BUNDLE, VIDEO, "anna.avatar")
    >>> with LipSync.open(BUNDLE, threads=1) as lipsync:
    ...     lipsync.run(avatar, AUDIO, "out.mp4", steps=1).frames
    16
    """
    footage = FootageOptions(start=start, end=end, fps=fps, speaker=speaker, faces=faces)
    check_path("output", output)
    opened, output = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle), Path(output)
    check_replaceable(output, "prepared avatar", is_avatar)
    if all(tensor.name != "moments" for tensor in opened.graph("vae_encoder").outputs):
        raise BundleError(
            f"{opened.path}: its VAE encoder gives no moments (lsx {opened.manifest.lsx_version} exported it). "
            f"Export again: lsx export CHECKPOINT -o {opened.path}"
        )
    source = open_video(video, footage.rate)
    part = Timeline.of_video(footage, source.count, source.clock)
    proxy = proxy or getattr(source, "path", None) is None
    _check_room(output, opened.model, part.frames, source, proxy=proxy)
    options = engine or EngineOptions()
    with (
        opened_engines(opened, best_backend(opened, backend), ("vae_encoder",), options) as loop,
        opened_engines(opened, "onnxruntime", FACE_GRAPHS, EngineOptions(threads=1)) as found,
        folder_beside(output, "prepared avatar", is_avatar) as folder,
    ):
        detector = FaceDetector(found, opened.manifest.faces.family)
        choice = faces_for(
            footage, detector, source, part, lambda *_: progress(0, part.frames), lambda: sync_judge(opened)
        )
        preparation = _Preparation(
            source=source,
            part=part,
            encoder=_Encoder(loop["vae_encoder"], opened.model),
            aligner=FaceAligner(
                FoundFaces(choice, opened.model.resolution),
                part.frames,
                clock=source.clock,
                detector_threads=detector_threads(),
            ),
            proxy=proxy,
            progress=progress,
        )
        manifest = AvatarManifest(
            schema_version=AVATAR_SCHEMA,
            lsx_version=lsx.__version__,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            resolution=opened.model.resolution,
            encoder=encoder_of(opened),
            backend=loop["vae_encoder"].description,
            video=VideoIdentity.of(source),
            start=footage.start,
            end=footage.end,
            fps=str(footage.fps),
            speaker=footage.speaker,
            frames=part.frames,
            **preparation.written(folder, opened.model),
        )
        write_whole(folder / AVATAR, (manifest.model_dump_json(indent=1) + "\n").encode())
    return Avatar.open(output)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Preparation:
    """The frames of a video on their way into an avatar's folder."""

    source: VideoSource
    part: Timeline
    """What of it is kept: its frames once, forwards."""
    encoder: _Encoder
    aligner: FaceAligner
    proxy: bool
    progress: Callable[[int, int], None]

    def written(self, folder: Path, model: ModelSpec) -> dict[str, Any]:
        """Write the source and its faces; returns the manifest's fields of both."""
        with AvatarWriter(folder, model.resolution, model.latent) as writer, self._frames(folder) as frames:
            batch: list[_Face] = []
            for face in self._faces(frames):
                batch.append(face)
                if len(batch) == self.encoder.size:
                    self._write(batch, writer)
                    batch = []
            if batch:
                self._write(batch, writer)
            entry, places = writer.finish(self.encoder.mask)
        return {
            "source": FileEntry.of(folder, self._source_name),
            "proxy": self._proxy_entry() if self.proxy else None,
            "faces": entry,
            "places": places,
            "choices": tuple(
                replace(choice, frame=choice.frame - self.part.first + self._first)
                for choice in self.aligner.faces.choices
            ),
        }

    @property
    def _first(self) -> int:
        """Number of the first frame that is kept, in the kept video."""
        return 0 if self.proxy else self.part.first

    @property
    def _source_name(self) -> str:
        path = getattr(self.source, "path", None)
        return "source.mkv" if self.proxy or path is None else f"source{path.suffix}"

    @contextmanager
    def _frames(self, folder: Path) -> Iterator[Iterator[AlignedFrame]]:
        """The aligned frames, while the source is kept in `folder`."""
        chain = StageChain(face_stages(self.aligner, self.source.at(self.part.source())), StageTimes())
        with closing(chain):
            if not self.proxy:
                shutil.copyfile(self.source.path, folder / self._source_name)  # type: ignore[attr-defined]
                yield chain
                return
            size, clock = (self.source.width, self.source.height), self.part.shown()
            with LosslessWriter(folder / self._source_name, size, clock) as kept:
                yield _kept(chain, kept)

    def _faces(self, frames: Iterator[AlignedFrame]) -> Iterator[_Face]:
        for number, item in enumerate(frames):
            for slot, face in sorted(item.faces.items()):
                yield _Face(self._first + number, slot.place, face)
            self.progress(number + 1, self.part.frames)

    def _write(self, batch: list[_Face], writer: AvatarWriter) -> None:
        moments = self.encoder.moments([one.face.crop for one in batch])
        for one, own in zip(batch, moments, strict=True):
            writer.add(one.frame, one.place, one.face.affine, one.face.crop, own)

    def _proxy_entry(self) -> ProxyEntry:
        clock = self.part.shown()
        path = getattr(self.source, "path", None)
        return ProxyEntry(
            tick=clock.tick,
            starts=None if clock.starts is None else tuple(clock.starts.tolist()),
            pixel_aspect=self.source.pixel_aspect,
            colours=self.source.colours,
            has_sound=path is not None and _has_sound(path),
        )


def _kept(frames: Iterator[AlignedFrame], writer: LosslessWriter) -> Iterator[AlignedFrame]:
    """The same, each written as it passes."""
    for item in frames:
        writer.write(item.frame)
        yield item


class _Face(NamedTuple):
    """One that is to be encoded."""

    frame: int
    """The kept video's."""
    place: int
    face: AlignedFace


def _has_sound(path: Path) -> bool:
    try:
        SoundReader(path)
    except MediaError:
        return False
    return True


def _check_room(output: Path, model: ModelSpec, frames: int, source: VideoSource, *, proxy: bool) -> None:
    """Raise OutputError where the disk has no room for a face in every frame."""
    crop, moments = 3 * model.resolution**2, 16 * 4 * model.latent**2
    path: Path | None = getattr(source, "path", None)
    kept = source.width * source.height * frames if proxy or path is None else path.stat().st_size
    needed, free = frames * (crop + moments) + kept, shutil.disk_usage(output.absolute().parent).free
    if needed > free:
        raise OutputError(
            f"{output}: an avatar of {frames} frames takes about {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} are "
            "free. Free space, or prepare a part: --start, --end"
        )
