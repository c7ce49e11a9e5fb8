"""The files of a run: opened and checked before anything starts, and written when whole."""

from __future__ import annotations

from pathlib import Path

from lsx.errors import UsageError
from lsx.media.audio_reader import SoundReader
from lsx.media.encoding import EncodeOptions
from lsx.media.targets import STANDARD_OUTPUT, check_target, container_of
from lsx.media.video_reader import VideoReader
from lsx.media.video_writer import VideoWriter

__all__ = ["open_inputs", "writer_like"]


def open_inputs(
    video: Path | str | VideoReader,
    audio: Path | str | SoundReader,
    output: Path | str,
    *,
    compare: Path | str | None = None,
    encode: EncodeOptions | None = None,
    no_face: str = "pass",
) -> tuple[VideoReader, SoundReader]:
    """Open a run's inputs and check all that can be checked before engines are loaded. Parameters as in LipSync.run.

    encode : checked against each output's container, the size of the frames, and what opens on this machine.

    LipSync.run takes what this returns in place of the paths, and does not scan the files again.

    Raises UsageError, MediaError, OutputError.
    """
    if no_face not in ("pass", "error"):
        raise UsageError(f"no_face is {no_face}; choose pass or error")
    if compare is not None and Path(compare) == Path(output):
        raise UsageError(f"{output}: output and compare are the same file; give another name")
    if compare is not None and Path(compare) == STANDARD_OUTPUT:
        raise UsageError("compare is -; only the output can go to standard output")
    sources = tuple(i.path if isinstance(i, VideoReader | SoundReader) else Path(i) for i in (video, audio))
    targets = tuple(Path(target) for target in (output, compare) if target is not None)
    for target in targets:
        check_target(target, sources)
    reader = video if isinstance(video, VideoReader) else VideoReader(video)
    sound = audio if isinstance(audio, SoundReader) else SoundReader(audio)
    for across, target in enumerate(targets, 1):
        (encode or EncodeOptions()).check(container_of(target), (reader.width * across, reader.height), sound)
    return reader, sound


def writer_like(path: Path, reader: VideoReader, encode: EncodeOptions, sound: SoundReader, across: int) -> VideoWriter:
    """A writer of `reader`'s colours and `across` times its width, with the whole of `sound`."""
    return VideoWriter(
        path,
        (reader.width * across, reader.height),
        colours=reader.colours,
        pixel_aspect=reader.pixel_aspect,
        encode=encode,
        sound=sound,
    )
