"""What the audio encoder makes of every segment's sound, computed once and kept beside the data."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lsx.errors import OutputError
from lsx.models.reference import audio_states
from lsx.models.whisper import AudioEncoder
from lsx.training.shards import DataSet, SegmentRow

__all__ = ["TokenStore"]


class TokenStore:
    """Encoder states of segments: float32 [rows, states, D], 50 rows a second, one file each.

    folder : its name should hold what the states depend on; see `TokenStore.of`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of(cls, data: DataSet, whisper_sha256: str) -> TokenStore:
        """The store of `data` for one audio encoder, in a folder beside the shards."""
        return cls(data.folder / f"audio-{whisper_sha256[:16]}")

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.npy"

    def fill(
        self,
        data: DataSet,
        rows: Sequence[SegmentRow],
        encoder: AudioEncoder,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> None:
        """Compute what is missing of `rows`. Raises OutputError where it cannot be kept."""
        missing = [row for row in rows if not self._file(row.key).is_file()]
        for done, row in enumerate(missing):
            progress(done, len(missing))
            wave = torch.from_numpy(data.samples(row).astype(np.float32) / 32768)
            self._write(row.key, audio_states(encoder, wave).numpy())

    def _write(self, key: str, states: NDArray[np.float32]) -> None:
        target = self._file(key)
        partial = target.with_name(f".{target.name}-{os.getpid()}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                np.save(file, states)
            partial.replace(target)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise OutputError(f"{self.folder}: cannot be written: {error.strerror or error}") from error

    def tokens(self, key: str, frames: range, window: tuple[int, int]) -> Tensor:
        """Tokens float32 [len(frames), S, D] of video frames at 25 a second, as the sampler gives them."""
        states = np.load(self._file(key), mmap_mode="r")
        before, after = window
        rows = np.stack([np.arange(2 * (i - before), 2 * (i + after + 1)).clip(0, len(states) - 1) for i in frames])
        return torch.from_numpy(np.ascontiguousarray(states[rows])).flatten(1, 2)
