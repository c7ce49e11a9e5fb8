"""Video out: one encode of picture and sound, which appears under its name when it is whole."""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from typing import Any

import av

from lsx.core.clock import MODEL_CLOCK, FrameClock
from lsx.core.tensors import Frame
from lsx.media.audio_reader import SoundReader
from lsx.media.encoding import EncodeOptions, VideoTrack
from lsx.media.opening import encoding_to
from lsx.media.soundtrack import Soundtrack
from lsx.media.targets import Output, container_of, target_of
from lsx.media.video_reader import ColourTags

__all__ = ["VideoWriter"]


class VideoWriter:
    """Encodes frames and sound into `path`. Use as a context manager: the file appears when the block ends well.

    size : width and height in pixels; sound : encoded or copied alongside, never ahead; clock : when the frames are
    shown. `-` is standard
    output; an open file gets fragmented MP4.
    """

    def __init__(
        self,
        path: Output,
        size: tuple[int, int],
        *,
        colours: ColourTags,
        pixel_aspect: Fraction = Fraction(1),
        encode: EncodeOptions | None = None,
        sound: SoundReader | None = None,
        clock: FrameClock = MODEL_CLOCK,
    ) -> None:
        self._target = target_of(path)
        self._clock = clock
        self._container: Any = None
        options = encode or EncodeOptions()
        try:
            with encoding_to(self._target.name):
                self._container = av.open(
                    self._target.opened, "w", format=container_of(path), options=self._target.muxer_options
                )
                self._video = VideoTrack(self._container, options, size, colours, pixel_aspect, clock)
                self._sound = None if sound is None else Soundtrack(self._container, options.audio_codec, sound)
        except BaseException:
            self._discard()
            raise

    def write(self, frame: Frame) -> None:
        """Append a frame uint8 [height, width, 3] RGB, and the sound up to its end."""
        with encoding_to(self._target.name):
            self._container.mux(self._video.encode(frame))
            self._write_sound(self._clock.seconds(self._video.count))

    def _write_sound(self, until: Fraction | None) -> None:
        """Encode sound up to `until` seconds, or all that is left."""
        while self._sound is not None and (until is None or self._sound.end < until):
            packets = next(self._sound.packets(), None)
            if packets is None:
                return
            self._container.mux(packets)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                with encoding_to(self._target.name):
                    self._write_sound(None)
                    self._container.mux(self._video.encode(None))
                    self._container.close()
                    self._target.commit()
        finally:
            self._discard()

    def _discard(self) -> None:
        """Close what is open, and let the target go."""
        with suppress(av.error.FFmpegError, OSError):  # it is thrown away: only the first error counts
            if self._container is not None:
                self._container.close()
        self._target.discard()
