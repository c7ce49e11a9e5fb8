"""Sections of a long run: each is kept when it is finished, so that a run that was ended goes on with the next.

A section has whole chunks. Beside its video lies what the run knew at its end, first, so that a section whose video is
there is whole.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

import lsx
from lsx.bundle.bundle import Bundle
from lsx.core.array_files import read_arrays, write_arrays
from lsx.core.atomic_files import sha256_of
from lsx.core.clock import FrameClock
from lsx.core.keywords import check_path, plain_number
from lsx.core.sampling import SamplingOptions
from lsx.core.tensors import Frame
from lsx.errors import MediaError, OutputError, UsageError
from lsx.media.encoding import EncodeOptions
from lsx.media.joined_video import frames_in, suffix_for_joining
from lsx.media.targets import STANDARD_OUTPUT, Output
from lsx.media.video_writer import VideoWriter
from lsx.runtime.avatar_video import AvatarVideo
from lsx.runtime.chunk_plan import BEGINNING, Border
from lsx.runtime.frame_pipeline import FramePipeline
from lsx.runtime.run_files import OpenedInputs
from lsx.runtime.run_state import RunState
from lsx.runtime.timeline import Timeline

__all__ = ["Resumption", "RunSections", "SectionedVideo"]

_DIGEST = 16  # hexadecimal digits


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumption:
    """The folder in which a run keeps its sections, and their length."""

    folder: Path
    """The folder of any number of runs: each has one of its own in it."""
    seconds: float
    """Seconds of the result in a section."""

    @classmethod
    def of(
        cls, folder: Path | str | None, seconds: float, output: Output, compare: Path | str | None
    ) -> Resumption | None:
        """What a caller asked for; None where that is nothing. Raises UsageError for what does not go with it."""
        seconds = plain_number(seconds)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
            raise UsageError(f"resume_every is {seconds}; give seconds over 0")
        if folder is None:
            return None
        check_path("resume_dir", folder)
        if not isinstance(output, Path) or output == STANDARD_OUTPUT:
            raise UsageError("resume_dir needs an output with a path: it is joined from its sections in the end")
        if compare is not None:
            raise UsageError("resume_dir keeps the result alone; leave compare out")
        return cls(folder=Path(folder), seconds=seconds)

    @contextmanager
    def sections(
        self,
        inputs: OpenedInputs,
        bundle: Bundle,
        options: SamplingOptions,
        encode: EncodeOptions,
        *facts: object,
    ) -> Iterator[RunSections]:
        """The sections of this very run, which go when the block ends well; other inputs or options have others.

        facts : what the result depends on besides. Raises UsageError where they are in use, OutputError.
        """
        digest = _digest(inputs, bundle, options, encode, self.seconds, *facts)
        own = self.folder / digest
        try:
            own.mkdir(parents=True, exist_ok=True)
            lock = (own / "lock").open("w")
        except OSError as error:
            raise OutputError(f"{own}: cannot be written: {error.strerror}") from error
        with lock:
            _lock(lock, own)
            sections = RunSections(own, suffix_for_joining(encode), self.seconds)
            yield sections
            sections.remove()


class RunSections:
    """The sections of one run in a folder that no other run uses."""

    def __init__(self, folder: Path, suffix: str, seconds: float) -> None:
        self._folder, self._suffix, self._seconds = folder, suffix, seconds
        self.borders: list[Border] = []
        """The end of each section but the last."""
        self.done = 0
        """Sections that an earlier run finished."""

    def go_on(self, pipeline: FramePipeline, timeline: Timeline, width: int) -> None:
        """Let a pipeline that has not begun go on after the sections that are there, and tell what it knows at borders.

        width : pixels of the video's frames.
        """
        every = max(round(self._seconds * float(timeline.shown().rate)), 1)
        self.borders = pipeline.chunker.borders(every)
        kept = self._kept()
        self.done = len(kept)
        aligner, source = pipeline.aligner, timeline.source()
        if kept:
            pipeline.start = RunState.of(_part("run", kept[-1]))
            aligner.border = self.borders[len(kept) - 1]
            aligner.faceless, aligner.any_face = list(pipeline.start.faceless), pipeline.start.any_face
            known = np.unique(np.maximum.accumulate(source[: aligner.border.frame])).tolist()
            aligner.latest = known[-1]
            aligner.faces.go_on_after(known, [_part("faces", arrays) for arrays in kept], width)
            pipeline.collected = aligner.border.chunk
        pipeline.borders = {border.frame: border for border in self.borders[self.done :]}
        aligner.faces.keep_history({int(source[:frame].max()) for frame in pipeline.borders})

    def _kept(self) -> list[Mapping[str, NDArray[Any]]]:
        """What the run knew at the end of each section that is there, without a gap."""
        found: list[Mapping[str, NDArray[Any]]] = []
        for number, border in enumerate(self.borders):
            arrays = read_arrays(self._state(number))
            if arrays is None or not self._has(number, border.frame - self.first(number)):
                break  # there is none, or it was damaged
            found.append(arrays)
        return found

    def _has(self, number: int, frames: int) -> bool:
        """Whether a section's video has so many frames."""
        try:
            return frames_in(self.video(number)) == frames
        except (OSError, ValueError, KeyError, EOFError, MediaError):
            return False

    @property
    def look(self) -> Path:
        """The file that has the look at the whole video, where one was taken before the run."""
        return self._folder / "look.npz"

    def first(self, number: int) -> int:
        """The first output frame of a section."""
        return self.borders[number - 1].frame if number else BEGINNING.frame

    def video(self, number: int) -> Path:
        """The file of a section's pictures."""
        return self._folder / f"{number:05}{self._suffix}"

    def _state(self, number: int) -> Path:
        return self._folder / f"{number:05}.npz"

    def keep(self, number: int, pipeline: FramePipeline, source: NDArray[np.int64]) -> None:
        """Write what the run knows at the end of a section. Raises OutputError.

        source : the video's frame at each place.
        """
        frame = self.borders[number].frame
        state = pipeline.states.pop(frame).arrays()
        faces = pipeline.aligner.faces.history(int(source[:frame].max()))
        arrays: dict[str, Any] = {f"run.{name}": array for name, array in state.items()}
        arrays |= {f"faces.{name}": array for name, array in faces.items()}
        write_arrays(self._state(number), arrays)

    def remove(self) -> None:
        """Remove all sections, and the folder of all runs where this was the last."""
        shutil.rmtree(self._folder, ignore_errors=True)
        with suppress(OSError):
            self._folder.parent.rmdir()


class SectionedVideo:
    """A video that is written section by section, and joined in the end. Use as a context manager.

    The output appears when the block ends well; otherwise the sections that are finished stay.
    """

    def __init__(
        self,
        sections: RunSections,
        pipeline: FramePipeline,
        timeline: Timeline,
        writer: Callable[[Path, FrameClock], VideoWriter],
        join: Callable[[list[tuple[int, Path]]], None],
    ) -> None:
        """writer : of a section's file and times; join : makes the output of first frames and files."""
        self._sections, self._pipeline, self._writer, self._join = sections, pipeline, writer, join
        self._source, self._clock, self._length = timeline.source(), timeline.shown(), timeline.frames
        self._number, self._count = sections.done, sections.first(sections.done)
        self._open: VideoWriter | None = None

    @property
    def _stop(self) -> int:
        """The output frame after the section that is being written."""
        borders = self._sections.borders
        return borders[self._number].frame if self._number < len(borders) else self._length

    def write(self, frame: Frame) -> None:
        """Append a frame uint8 [height, width, 3] RGB."""
        if self._open is None:
            clock = self._clock.part(self._count, self._stop)
            self._open = self._writer(self._sections.video(self._number), clock)
        self._open.write(frame)
        self._count += 1
        if self._count == self._stop < self._length:
            self._sections.keep(self._number, self._pipeline, self._source)
            self._end()
            self._number += 1

    def _end(self) -> None:
        if self._open is not None:
            self._open.__exit__(None, None, None)
            self._open = None

    def __enter__(self) -> SectionedVideo:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            if self._open is not None:
                self._open.__exit__(kind, error, trace)
            return
        self._end()
        numbers = range(self._number + 1)
        self._join([(self._sections.first(number), self._sections.video(number)) for number in numbers])


def _part(name: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {key.removeprefix(f"{name}."): array for key, array in arrays.items() if key.startswith(f"{name}.")}


def _digest(
    inputs: OpenedInputs, bundle: Bundle, options: SamplingOptions, encode: EncodeOptions, *facts: object
) -> str:
    """What the pictures of a run depend on, wherever its files lie."""
    digest = hashlib.sha256()
    plan, footage = inputs.plan, inputs.footage
    left_out = {"faces", "segments", "mask", "compare_layout", "mix"}
    plain = [
        lsx.__version__,
        bundle.manifest.text(),
        asdict(options),
        asdict(encode),
        footage.model_dump(mode="json", exclude=left_out),
        [rule.text for rule in plan.rules],
        _named_file(footage.mask),
        _named_file(footage.faces),
        _video(inputs),
        *facts,
    ]
    digest.update(json.dumps(plain, default=str).encode())
    for voice in plan.voices:
        part = voice.part
        digest.update(f"{part.start} {part.stop} {part.rule} {voice.samples.dtype}".encode())
        digest.update(np.ascontiguousarray(voice.samples).tobytes())
    return digest.hexdigest()[:_DIGEST]


def _named_file(given: object) -> object:
    """What an option says, or the hash of the file that it names."""
    path = Path(str(given))
    return sha256_of(path) if given is not None and path.is_file() else given


def _video(inputs: OpenedInputs) -> list[str]:
    video = inputs.video
    if isinstance(video, AvatarVideo):
        return [video.avatar.manifest.model_dump_json()]
    path: Path | None = getattr(video, "path", None)
    if path is None:
        raise UsageError("resume_dir needs a video file; frames in memory are gone when a run is ended")
    return [sha256_of(path)]


def _lock(file: Any, folder: Path) -> None:
    """Hold it until it is closed. Raises UsageError where another run does."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # not on this system
        return
    except OSError as error:
        raise UsageError(f"{folder}: a run with these inputs and options is under way there") from error
