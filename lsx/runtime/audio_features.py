"""Sound to audio tokens: log-mel on the host, encoder states from the `audio_encoder` graph, rows for each frame.

Source: Whisper's log-mel; LatentSync's windows of feature rows (`audio_feat_length`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsx.core.clock import MODEL_CLOCK, FrameClock
from lsx.core.footage import AudioContext
from lsx.core.mel import MELS, mel_filters
from lsx.core.model_spec import ModelSpec
from lsx.engines.engine import Engine
from lsx.media.audio_reader import as_samples

__all__ = [
    "SEGMENT",
    "AudioTokens",
    "LogMel",
]


SEGMENT = 3000
"""Mel columns that the encoder takes at a time: 30 s."""

_ROWS = SEGMENT // 2
"""Feature rows of those: 50 a second."""

_FADE = 25
"""Rows before and after a border over which one window's states lead to the next one's."""

_WINDOW, _HOP = 400, 160
_CHUNK = 6000  # mel columns transformed at a time: bounds the memory that a long file needs
_KEPT = 3  # segments whose features stay in memory: a frame's window spans two at most


class LogMel:
    """The log-mel spectrogram of a whole file, computed a segment at a time.

    Only the file's maximum couples the segments; it is found in one pass at construction.
    """

    def __init__(self, samples: NDArray[np.int16] | NDArray[np.float32]) -> None:
        self.columns = len(samples) // _HOP
        """Mel columns in the file: 100 a second."""
        self._samples = np.pad(samples, _WINDOW // 2, mode="reflect")
        self._scale = 1 / 32768 if samples.dtype == np.int16 else 1.0
        self._filters = mel_filters(_WINDOW, 0.0, 8000.0).T
        self._window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_WINDOW) / _WINDOW)
        starts = range(0, self.columns, _CHUNK)
        peak = max(self._log_power(start, min(start + _CHUNK, self.columns)).max() for start in starts)
        self._floor = float(peak) - 8

    def _log_power(self, start: int, stop: int) -> NDArray[np.float64]:
        """log10 of the mel power of columns start..stop, float64 [stop - start, 80]."""
        span = self._samples[start * _HOP : (stop - 1) * _HOP + _WINDOW].astype(np.float64) * self._scale
        windows = np.lib.stride_tricks.sliding_window_view(span, _WINDOW)[::_HOP]
        power = np.abs(np.fft.rfft(windows * self._window)) ** 2
        return np.asarray(np.log10(np.maximum(power @ self._filters, 1e-10)))

    def silence(self) -> NDArray[np.float32]:
        """A segment in which nothing is heard, as silences of this file are: float32 [80, 3000]."""
        return np.full((MELS, SEGMENT), (self._floor + 4) / 4, dtype=np.float32)

    def segment(self, start: int) -> NDArray[np.float32]:
        """Columns `start` onwards, float32 [80, 3000]; past the file's end 0, in the normalised space."""
        stop = min(start + SEGMENT, self.columns)
        mel = np.zeros((MELS, SEGMENT), dtype=np.float32)
        if stop > start:
            mel[:, : stop - start] = ((np.maximum(self._log_power(start, stop), self._floor) + 4) / 4).T
        return mel


class AudioTokens:
    """Audio tokens of any video frame, the encoder run on a segment when its first row is asked for.

    Memory does not grow with the file: a few segments' features are kept.
    """

    def __init__(
        self,
        engine: Engine,
        samples: Any,
        model: ModelSpec,
        *,
        context: AudioContext = "exact",
        speech: NDArray[np.float32] | None = None,
        clock: FrameClock = MODEL_CLOCK,
        first: int = 0,
    ) -> None:
        """
        context : which 30 s the encoder hears around a row, as of FootageOptions; speech : share of each video frame
        that is spoken, [frames]; the rest of it becomes tokens of silence. clock : when video frames are shown;
        first : the one at which the sound begins.
        """
        samples = as_samples(samples)
        self._kept_rows = _ROWS if context == "exact" else _ROWS // 2
        self._speech = speech
        self._clock, self._first = clock, first
        self._silent: NDArray[np.float32] | None = None
        self._engine = engine
        self._model = model
        self._mel = LogMel(samples)
        self._segments: OrderedDict[int, NDArray[np.float32]] = OrderedDict()
        self.rows = self._mel.columns // 2
        """Feature rows in the file: 50 a second."""
        self.frames = -(-len(samples) // model.samples_per_frame)
        """Video frames that the audio lasts, rounded up."""

    def _first_row(self, segment: int) -> int:
        """The row at which the encoder begins for a segment: half of what it hears besides lies before what is kept."""
        return max(segment * self._kept_rows - (_ROWS - self._kept_rows) // 2, 0)

    def _features(self, segment: int) -> NDArray[np.float32]:
        """Encoder states of one segment, float32 [1500, states, D]."""
        if segment not in self._segments:
            mel = self._mel.segment(2 * self._first_row(segment))[None]
            self._segments[segment] = self._engine.infer({"mel": mel})["hidden_states"][0]
            while len(self._segments) > _KEPT:
                self._segments.popitem(last=False)
        self._segments.move_to_end(segment)
        return self._segments[segment]

    def features(self, rows: Sequence[int]) -> NDArray[np.float32]:
        """Feature rows, each clamped to the file: float32 [len(rows), states, D]."""
        clamped = [min(max(row, 0), self.rows - 1) for row in rows]
        return np.stack([self._row(row) for row in clamped])

    def _heard(self, row: int, segment: int) -> NDArray[np.float32]:
        """The row as the encoder makes it, hearing that segment."""
        return np.asarray(self._features(segment)[row - self._first_row(segment)])

    def _row(self, row: int) -> NDArray[np.float32]:
        """A feature row; around a border of windows that overlap, of both: where a row lies in a window tells in it."""
        border = round(row / self._kept_rows)
        share = 0.5 + (row + 0.5 - border * self._kept_rows) / (2 * _FADE)
        if self._kept_rows == _ROWS or border == 0 or not 0 < share < 1:
            return self._heard(row, row // self._kept_rows)
        before, after = self._heard(row, border - 1), self._heard(row, border)
        return np.asarray((1 - share) * before + share * after, dtype=np.float32)

    def tokens(self, frames: Sequence[int]) -> NDArray[np.float32]:
        """Tokens of video frames: float32 [len(frames), S, D], the state index fastest.

        Fifty feature rows are heard a second; a frame has those round the one that is nearest to its beginning.
        """
        before, after = self._model.audio_window
        rows = self._clock.nearest_units(frames, 50, self._first).tolist()
        windows = [range(row - 2 * before, row + 2 * (after + 1)) for row in rows]
        tokens = np.stack([self.features(window) for window in windows])
        if self._speech is not None:
            shares = self._speech[np.clip(np.array(frames) - self._first, 0, len(self._speech) - 1)]
            for number in np.flatnonzero(shares < 1).tolist():
                share = shares[number]
                tokens[number] = share * tokens[number] + (1 - share) * self._silence(windows[number])
        return tokens.reshape(len(frames), self._model.tokens, self._model.audio_dim)

    def _silence(self, rows: Sequence[int]) -> NDArray[np.float32]:
        """What these feature rows would be, were nothing to be heard: float32 [len(rows), states, D]."""
        if self._silent is None:
            self._silent = self._engine.infer({"mel": self._mel.silence()[None]})["hidden_states"][0]
        return np.asarray(self._silent[np.clip(rows, 0, self.rows - 1) % _ROWS])
