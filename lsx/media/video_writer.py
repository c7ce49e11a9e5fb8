"""Video out: one encode of picture and sound, which appears under its name when it is whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from fractions import Fraction
from typing import Any, Self

import av

from lsx.core.clock import MODEL_CLOCK, FrameClock
from lsx.core.tensors import Frame
from lsx.media.audio_reader import SoundReader
from lsx.media.colours import ColourTags
from lsx.media.encoding import EncodeOptions, VideoTrack
from lsx.media.opening import encoding_to
from lsx.media.soundtrack import Soundtrack
from lsx.media.targets import Output, container_of, target_of

__all__ = ["OutputFile", "VideoWriter"]


class OutputFile:
    """A container that is being written. Use as a context manager: the file appears when the block ends well.

    `-` is standard output; an open file gets fragmented MP4.
    """

    def __init__(
        self, path: Output, add_video: Callable[[Any], None], audio_codec: str, sound: SoundReader | None
    ) -> None:
        """add_video : adds the video stream to the container that it is given; sound : goes alongside, never ahead."""
        self._target = target_of(path)
        self._container: Any = None
        try:
            with encoding_to(self._target.name):
                self._container = av.open(
                    self._target.opened, "w", format=container_of(path), options=self._target.muxer_options
                )
                add_video(self._container)
                self._sound = None if sound is None else Soundtrack(self._container, audio_codec, sound)
        except BaseException:
            self._discard()
            raise

    def mux(self, packets: Any, until: Fraction) -> None:
        """Write packets of the video stream, and the sound up to `until` seconds."""
        with encoding_to(self._target.name):
            self._container.mux(packets)
            self._write_sound(until)

    def last_packets(self) -> Iterable[Any]:
        """What the video stream still has when all was written."""
        return ()

    def _write_sound(self, until: Fraction | None) -> None:
        """Encode sound up to `until` seconds, or all that is left."""
        while self._sound is not None and (until is None or self._sound.end < until):
            packets = next(self._sound.packets(), None)
            if packets is None:
                return
            self._container.mux(packets)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                with encoding_to(self._target.name):
                    self._write_sound(None)
                    self._container.mux(self.last_packets())
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


class VideoWriter(OutputFile):
    """Encodes frames and sound into `path`.

    size : width and height in pixels; sound : encoded or copied alongside; clock : when the frames are shown.
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
        options = encode or EncodeOptions()
        self._clock = clock

        def add_video(container: Any) -> None:
            self._video = VideoTrack(container, options, size, colours, pixel_aspect, clock)

        super().__init__(path, add_video, options.audio_codec, sound)

    def write(self, frame: Frame) -> None:
        """Append a frame uint8 [height, width, 3] RGB, and the sound up to its end."""
        with encoding_to(self._target.name):
            packets = self._video.encode(frame)
        self.mux(packets, self._clock.seconds(self._video.count))

    def last_packets(self) -> Iterable[Any]:
        """What the encoder held back."""
        packets: Iterable[Any] = self._video.encode(None)
        return packets
