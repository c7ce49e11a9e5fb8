"""Sound in: samples for the model, and frames of the file's own quality for the output."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from lsx.core.keywords import check_kind, check_path, check_whole
from lsx.core.tensors import described
from lsx.errors import MediaError, UsageError
from lsx.media.opening import decoding, open_media

__all__ = ["MIN_SAMPLES", "SAMPLE_RATE", "SoundReader", "as_samples"]

SAMPLE_RATE = 16000
"""Samples per second of all sound that the model hears."""

MIN_SAMPLES = 320
"""Fewer samples (20 ms) give no feature row at all."""


def as_samples(samples: Any) -> NDArray[np.int16] | NDArray[np.float32]:
    """Check `samples`: mono 16 kHz, int16 or float32 in -1..1, one axis.

    Raises UsageError for another type, shape or dtype, MediaError for non-finite values, or less than 20 ms.
    """
    wrong = UsageError(
        f"audio samples are {described(samples)}; give int16 or float32 of one axis, mono at 16 kHz, such as "
        "SoundReader(PATH).samples()"
    )
    try:
        array = np.asarray(samples)
    except (TypeError, ValueError) as error:
        raise wrong from error
    if array.ndim != 1 or array.dtype not in (np.int16, np.float32):
        raise wrong
    if array.size < MIN_SAMPLES:
        raise MediaError(
            f"the audio has {array.size} samples ({array.size / 16:.1f} ms at 16 kHz); at least 20 ms are needed"
        )
    if array.dtype == np.float32 and not np.isfinite(array).all():
        raise MediaError("the audio has samples that are not finite (NaN or infinity); repair the file first")
    return array


class SoundReader:
    """The audio stream of a file.

    Raises UsageError : no path; MediaError : no such file, no audio stream, no samples, damaged.

    Examples
    --------
    >>> from lsx import SoundReader
    >>> sound = SoundReader(AUDIO)
    >>> sound.rate, sound.codec, sound.layout
    (16000, 'pcm_s16le', 'mono')
    """

    kept: Any = None
    """What must live as long as this does: the temporary file that `path` names, where it is one."""

    def __init__(self, path: Path | str) -> None:
        check_path("audio", path)
        self.path = Path(path)
        self._samples: NDArray[np.int16] | None = None
        with open_media(self.path) as container, decoding(self.path, lambda: "in its header"):
            context = self._stream(container).codec_context
            self.codec = str(context.codec.canonical_name)
            """FFmpeg's name of the codec, as aac or pcm_s16le."""
            self.rate = int(context.sample_rate)
            """Samples per second."""
            self.layout = "mono" if context.layout.nb_channels == 1 else "stereo"
            """Channels of an encoded output: the file's own mono or stereo; more are mixed down to stereo."""

    def _stream(self, container: Any) -> Any:
        if not container.streams.audio:
            raise MediaError(f"{self.path}: no audio stream in it")
        return container.streams.audio[0]

    def _resampled(self, sample_format: str, layout: str, rate: int, frame_size: int | None = None) -> Iterator[Any]:
        with open_media(self.path) as container:
            stream = self._stream(container)
            resampler = av.AudioResampler(format=sample_format, layout=layout, rate=rate, frame_size=frame_size)
            seconds = 0.0
            with decoding(self.path, lambda: f"at {seconds:.2f} s of its sound"):
                try:
                    for frame in container.decode(stream):
                        seconds = frame.time or seconds
                        frame.pts = None  # samples are counted, not placed: gaps in the stamps are not silence
                        yield from resampler.resample(frame)
                    yield from resampler.resample(None)
                except av.error.EOFError:
                    return

    def samples(self) -> NDArray[np.int16] | NDArray[np.float32]:
        """The whole file as int16 mono at 16 kHz, resampled by FFmpeg; read once. Raises MediaError under 20 ms.

        Examples
        --------
        >>> from lsx import SoundReader
        >>> samples = SoundReader(AUDIO).samples()
        >>> samples.dtype.name, samples.shape
        ('int16', (10240,))
        """
        if self._samples is None:
            self._samples = self._decoded_samples()
        return self._samples

    def _decoded_samples(self) -> NDArray[np.int16]:
        parts = [frame.to_ndarray().reshape(-1) for frame in self._resampled("s16", "mono", SAMPLE_RATE)]
        if not sum(len(part) for part in parts):
            raise MediaError(f"{self.path}: no samples in its audio stream")
        joined: NDArray[np.int16] = np.concatenate(parts)
        try:
            as_samples(joined)
        except MediaError as error:
            raise MediaError(f"{self.path}: {error}") from error
        return joined

    def start(self) -> float:
        """Second of the file's own time at which its sound begins, 0 where it does not say. Raises MediaError.

        Examples
        --------
        >>> from lsx import SoundReader
        >>> SoundReader(AUDIO).start()
        0.0
        """
        with open_media(self.path) as container, decoding(self.path, lambda: "where its sound starts"):
            first = next(container.decode(self._stream(container)), None)
            return float(first.time or 0.0) if first is not None else 0.0

    def frames(self, sample_format: str, rate: int, size: int, layout: str | None = None) -> Iterator[Any]:
        """The sound as frames of `size` samples in FFmpeg's `sample_format`, by default in the file's own channels."""
        check_kind("sample_format", sample_format, str)
        check_whole("rate", rate)
        check_whole("size", size)
        return self._resampled(sample_format, layout or self.layout, rate, size)

    @contextmanager
    def stream(self) -> Iterator[Any]:
        """The file's audio stream, open, for its parameters. Raises MediaError."""
        with open_media(self.path) as container:
            yield self._stream(container)

    def packets(self) -> Iterator[tuple[Any, Fraction]]:
        """The file's own packets and the second at which each ends, counted from where its sound starts.

        A codec's lead-in, which players skip, comes before second 0. Raises MediaError.
        """
        seconds = Fraction(0)
        with self.stream() as stream, decoding(self.path, lambda: f"at {float(seconds):.2f} s of its sound"):
            base = stream.start_time
            for packet in stream.container.demux(stream):
                if packet.size == 0:
                    continue
                if packet.pts is None:
                    raise MediaError(f"{self.path}: its sound has no time stamps to copy; choose audio_codec aac")
                base = packet.pts if base is None else base
                packet.pts -= base
                packet.dts = packet.pts
                seconds = (packet.pts + (packet.duration or 0)) * Fraction(packet.time_base)
                yield packet, seconds
