"""The files of a run: opened and checked before anything starts, and written when whole."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsx.core.footage import FootageOptions
from lsx.core.tensors import Frame
from lsx.errors import UsageError
from lsx.media.audio_reader import SAMPLE_RATE, SoundReader
from lsx.media.encoding import EncodeOptions
from lsx.media.given import SoundInput, VideoInput, VideoSource, open_sound, open_video
from lsx.media.placed_sound import PlacedSound
from lsx.media.targets import STANDARD_OUTPUT, Output, as_output, check_target, container_of
from lsx.media.video_reader import FPS
from lsx.media.video_writer import VideoWriter
from lsx.runtime.timeline import Timeline

__all__ = ["open_inputs", "placed", "sound_notes", "write_frames", "writer_like"]

_SILENT = 1e-3  # of full scale: about -60 dB
_SHORT = 1.0  # seconds


def open_inputs(
    video: VideoInput,
    audio: SoundInput,
    output: Any,
    *,
    compare: Path | str | None = None,
    encode: EncodeOptions | None = None,
    footage: FootageOptions | None = None,
    no_face: str = "pass",
) -> tuple[VideoSource, SoundReader]:
    """Open a run's inputs and check all that can be checked before engines are loaded. Parameters as in LipSync.run.

    encode : checked against each output's container, the size of the frames, and what opens on this machine.
    footage : checked against the lengths of both.

    LipSync.run takes what this returns in place of the paths, and does not scan the files again.

    Raises UsageError, MediaError, OutputError.
    """
    if no_face not in ("pass", "error"):
        raise UsageError(f"no_face is {no_face}; choose pass or error")
    if compare is not None and not isinstance(compare, Path | str):
        raise UsageError(f"compare is of type {type(compare).__name__}; give a path")
    if compare is not None and not isinstance(output, Path | str):
        raise UsageError("compare needs an output with a path; give one, or leave compare out")
    if compare is not None and Path(compare) == Path(output):
        raise UsageError(f"{output}: output and compare are the same file; give another name")
    if compare is not None and Path(compare) == STANDARD_OUTPUT:
        raise UsageError("compare is -; only the output can go to standard output")
    named = (source if isinstance(source, Path | str) else getattr(source, "path", None) for source in (video, audio))
    sources = tuple(Path(path) for path in named if path is not None)
    targets = (as_output(output), *(() if compare is None else (Path(compare),)))
    for target in targets:
        check_target(target, sources)
    reader, sound = open_video(video), open_sound(audio)
    timeline = Timeline.of(footage or FootageOptions(), reader.count, len(sound.samples()))
    if timeline.is_placed and encode is not None and encode.audio_codec == "copy":
        raise UsageError(
            "audio_codec copy keeps the sound's packets as they are; it does not go with a sound that is moved, cut or "
            "filled with silence (audio_offset, length, extend). Choose aac or pcm"
        )
    for across, target in enumerate(targets, 1):
        (encode or EncodeOptions()).check(container_of(target), (reader.width * across, reader.height), sound)
    return reader, sound


def placed(sound: SoundReader, timeline: Timeline) -> SoundReader:
    """`sound` as a run's result has it: moved, cut or filled with silence, or the very same."""
    if not timeline.is_placed:
        return sound
    return PlacedSound(sound, timeline.audio_offset, Fraction(timeline.frames, FPS) if timeline.fitted else None)


def sound_notes(samples: NDArray[np.int16] | NDArray[np.float32]) -> tuple[str, ...]:
    """What is odd about a sound that can be run all the same, one line each."""
    full = 32768 if samples.dtype == np.int16 else 1.0
    seconds = len(samples) / SAMPLE_RATE
    notes = []
    if np.abs(samples.astype(np.float32)).max() < _SILENT * full:
        notes.append("the sound is silent (under -60 dB): the mouth will stay shut. Is it the right file or track?")
    if seconds <= _SHORT:
        notes.append(
            f"the sound lasts {seconds:.2f} s: the result has no more frames than that, whatever the video's length"
        )
    return tuple(notes)


def writer_like(
    target: Output, reader: VideoSource, encode: EncodeOptions, sound: SoundReader, across: int
) -> VideoWriter:
    """A writer of `reader`'s colours and `across` times its width, with the whole of `sound`."""
    return VideoWriter(
        target,
        (reader.width * across, reader.height),
        colours=reader.colours,
        pixel_aspect=reader.pixel_aspect,
        encode=encode,
        sound=sound,
    )


def write_frames(writers: Sequence[VideoWriter], frames: Iterable[tuple[Frame, Frame]]) -> float:
    """Write the results of `frames`, pairs of (result, original); to a second writer both side by side.

    Returns the seconds that this took without what it waited for frames.
    """
    seconds = 0.0
    for result, original in frames:
        start = time.perf_counter()
        writers[0].write(result)
        for writer in writers[1:]:
            writer.write(np.concatenate([original, result], axis=1))
        seconds += time.perf_counter() - start
    return seconds
