"""The files of a run: opened and checked before anything starts, and written when whole."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from lsx.bundle.bundle import Bundle
from lsx.core.clock import MODEL_CLOCK, FrameClock
from lsx.core.footage import FootageOptions
from lsx.core.keywords import check_path
from lsx.core.tensors import Frame
from lsx.errors import UsageError
from lsx.faces.avatar import Avatar
from lsx.faces.compositing import read_paste_mask
from lsx.faces.speaker import SpeakerChoice
from lsx.faces.track_file import Tracks, VideoIdentity
from lsx.media.audio_reader import SAMPLE_RATE, SoundReader
from lsx.media.comparison import LAYOUTS, Layout
from lsx.media.encoding import EncodeOptions
from lsx.media.given import SoundInput, VideoInput, VideoSource, open_sound
from lsx.media.targets import STANDARD_OUTPUT, Output, as_output, check_target, container_of
from lsx.media.video_writer import VideoWriter
from lsx.runtime.avatar_video import AvatarVideo, open_source
from lsx.runtime.run_plan import RunPlan, plan_of

__all__ = [
    "FrameSink",
    "OpenedInputs",
    "is_face_required",
    "open_inputs",
    "sound_notes",
    "speaker_notes",
    "write_frames",
    "writer_like",
]

_SILENT = 1e-3  # of full scale: about -60 dB
_SHORT = 1.0  # seconds


class OpenedInputs(NamedTuple):
    """A run's inputs, and what is to become of them."""

    video: VideoSource
    sound: SoundReader | None
    """The one that was given; None where segments have theirs."""
    plan: RunPlan
    heard: SoundReader
    """The result's sound."""
    footage: FootageOptions
    """The options as they are for this video: an avatar has some of its own."""


def open_inputs(
    video: VideoInput | Avatar,
    audio: SoundInput | None,
    output: Any,
    *,
    bundle: Bundle | None = None,
    compare: Path | str | None = None,
    encode: EncodeOptions | None = None,
    footage: FootageOptions | None = None,
) -> OpenedInputs:
    """Open a run's inputs and check all that can be checked before engines are loaded. Parameters as in LipSync.run.

    bundle : whose VAE encoder an avatar must have been prepared with.
    encode : checked against each output's container, the size of the frames, and what opens on this machine.
    footage : checked against the lengths of both.

    LipSync.run takes the video and the sound of this in place of the paths, and does not scan those files again.

    Raises UsageError, MediaError, OutputError.
    """
    _check_outputs(output, compare)
    named = (source if isinstance(source, Path | str) else getattr(source, "path", None) for source in (video, audio))
    sources = tuple(Path(path) for path in named if path is not None)
    footage = footage or FootageOptions()
    read_paste_mask(footage.mask)
    layout = LAYOUTS[footage.compare_layout]
    targets = {as_output(output): (1, 1)} | ({} if compare is None else {Path(compare): (layout.across, layout.down)})
    for target in targets:
        check_target(target, sources)
    reader, footage = open_source(video, footage)
    if isinstance(reader, AvatarVideo) and bundle is not None:
        reader.avatar.check(bundle)
    sound = None if audio is None else open_sound(audio)
    plan, heard = plan_of(reader, sound, footage)
    if heard is not sound and encode is not None and encode.audio_codec == "copy":
        raise UsageError(
            "audio_codec copy keeps the sound's packets as they are; it does not go with a sound that is moved, cut, "
            "filled with silence or mixed (audio_offset, length, extend, segments). Choose aac or pcm"
        )
    if footage.faces is not None:
        Tracks.read(footage.faces).check(VideoIdentity.of(reader))
    for target, (across, down) in targets.items():
        size = (reader.width * across, reader.height * down)
        (encode or EncodeOptions()).check(container_of(target), size, heard)
    return OpenedInputs(reader, sound, plan, heard, footage)


def is_face_required(no_face: str) -> bool:
    """Whether a run ends at the first frame without a face. Raises UsageError for another word than pass and error."""
    if no_face not in ("pass", "error"):
        raise UsageError(f"no_face is {no_face}; choose pass or error")
    return no_face == "error"


def _check_outputs(output: Any, compare: Any) -> None:
    """Raise UsageError for what does not fit together, whatever the inputs."""
    if compare is not None:
        check_path("compare", compare)
    if compare is not None and not isinstance(output, Path | str):
        raise UsageError("compare needs an output with a path; give one, or leave compare out")
    if compare is not None and Path(compare) == Path(output):
        raise UsageError(f"{output}: output and compare are the same file; give another name")
    if compare is not None and Path(compare) == STANDARD_OUTPUT:
        raise UsageError("compare is -; only the output can go to standard output")


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


def speaker_notes(choices: Sequence[SpeakerChoice], clock: FrameClock) -> tuple[str, ...]:
    """The places where the speaker was lost, and another face was taken in the same shot."""
    lost = [choice for choice in choices if choice.lost]
    if not lost:
        return ()
    places = ", ".join(f"{float(clock.seconds(choice.frame)):.2f} s" for choice in lost[:5]) + (
        ", ..." if len(lost) > 5 else ""
    )
    return (f"the face that spoke was lost, and another was taken, at {places} of the video",)


def writer_like(
    target: Output,
    reader: VideoSource,
    encode: EncodeOptions,
    sound: SoundReader | None,
    layout: Layout | None = None,
    clock: FrameClock = MODEL_CLOCK,
) -> VideoWriter:
    """A writer of `reader`'s colours and size, or a layout's of it, with the whole of `sound`.

    clock : when the result's frames are shown.
    """
    across, down = (1, 1) if layout is None else (layout.across, layout.down)
    return VideoWriter(
        target,
        (reader.width * across, reader.height * down),
        colours=reader.colours,
        pixel_aspect=reader.pixel_aspect,
        encode=encode,
        sound=sound,
        clock=clock,
    )


class FrameSink(Protocol):
    """What takes the frames of a result, in order."""

    def write(self, frame: Frame) -> None:
        """Take a frame uint8 [height, width, 3] RGB."""


def write_frames(
    frames: Iterable[tuple[Frame, Frame]], writer: FrameSink, comparison: VideoWriter | None, layout: Layout
) -> float:
    """Write the results of `frames`, pairs of (result, original); to `comparison` both, as `layout` shows them.

    Returns the seconds that this took without what it waited for frames.
    """
    seconds = 0.0
    for number, (result, original) in enumerate(frames):
        start = time.perf_counter()
        writer.write(result)
        if comparison is not None:
            comparison.write(layout.draw(original, result, number))
        seconds += time.perf_counter() - start
    return seconds
