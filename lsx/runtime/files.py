"""The files of a run: opened and checked before anything starts, and written when whole."""

from __future__ import annotations

from pathlib import Path

from lsx.errors import UsageError
from lsx.runtime.output import VideoWriter, check_output
from lsx.runtime.sound import SoundReader
from lsx.runtime.video import VideoReader

__all__ = ["open_inputs", "writer_like"]


def open_inputs(
    video: Path | str | VideoReader,
    audio: Path | str | SoundReader,
    output: Path | str,
    *,
    compare: Path | str | None = None,
    crf: int = 18,
    no_face: str = "pass",
) -> tuple[VideoReader, SoundReader]:
    """Open a run's inputs and check all that can be checked before engines are loaded. Parameters as in LipSync.run.

    LipSync.run takes what this returns in place of the paths, and does not scan the files again.

    Raises UsageError, MediaError, OutputError.
    """
    if no_face not in ("pass", "error"):
        raise UsageError(f"no_face is {no_face}; choose pass or error")
    if isinstance(crf, bool) or not isinstance(crf, int) or not 0 <= crf <= 51:
        raise UsageError(f"crf is {crf}; give a whole number in 0..51 (18 is visually lossless)")
    if compare is not None and Path(compare) == Path(output):
        raise UsageError(f"{output}: output and compare are the same file; give another name")
    sources = tuple(i.path if isinstance(i, VideoReader | SoundReader) else Path(i) for i in (video, audio))
    for target in (output, compare):
        if target is not None:
            check_output(Path(target), sources)
    return (
        video if isinstance(video, VideoReader) else VideoReader(video),
        audio if isinstance(audio, SoundReader) else SoundReader(audio),
    )


def writer_like(path: Path, reader: VideoReader, crf: int, sound: SoundReader, across: int) -> VideoWriter:
    """A writer of `reader`'s colours and `across` times its width, with the whole of `sound`."""
    return VideoWriter(
        path,
        (reader.width * across, reader.height),
        colours=reader.colours,
        pixel_aspect=reader.pixel_aspect,
        crf=crf,
        sound=sound,
    )
