"""Arrays that are computed once for every segment and kept beside the data: audio states, moments of latents."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lsx.errors import OutputError
from lsx.models.pixels import pixels_of
from lsx.models.reference import audio_states
from lsx.models.whisper import AudioEncoder
from lsx.training.shards import DataSet, SegmentRow

if TYPE_CHECKING:
    from lsx.models.vae import Vae

__all__ = ["FeatureStore", "LatentStore", "TokenStore"]

Counted = Callable[[int, int], None]
_VAE_FRAMES = 8  # at a time


class FeatureStore:
    """A file of one array for each segment, in a folder whose name holds what they depend on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.npy"

    def missing(self, rows: Sequence[SegmentRow]) -> list[SegmentRow]:
        """The segments whose array is not there yet."""
        return [row for row in rows if not self._file(row.key).is_file()]

    def read(self, key: str) -> NDArray[np.float32]:
        """A segment's array, of which only what is used is read."""
        array: NDArray[np.float32] = np.load(self._file(key), mmap_mode="r")
        return array

    def write(self, key: str, array: NDArray[Any]) -> None:
        """Keep a segment's array. Raises OutputError."""
        target = self._file(key)
        partial = target.with_name(f".{target.name}-{os.getpid()}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                np.save(file, array)
            partial.replace(target)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise OutputError(f"{self.folder}: cannot be written: {error.strerror or error}") from error


class TokenStore(FeatureStore):
    """What the audio encoder makes of every segment's sound: float32 [rows, states, D], 50 rows a second."""

    @classmethod
    def of(cls, data: DataSet, whisper_sha256: str) -> TokenStore:
        """The store of `data` for one audio encoder, in a folder beside the shards."""
        return cls(data.folder / f"audio-{whisper_sha256[:16]}")

    def fill(
        self, data: DataSet, rows: Sequence[SegmentRow], encoder: AudioEncoder, progress: Counted = lambda _d, _t: None
    ) -> None:
        """Compute what is missing of `rows`. Raises OutputError where it cannot be kept."""
        missing = self.missing(rows)
        for done, row in enumerate(missing):
            progress(done, len(missing))
            wave = torch.from_numpy(data.samples(row).astype(np.float32) / 32768)
            self.write(row.key, audio_states(encoder, wave).numpy())

    def tokens(self, key: str, frames: range, window: tuple[int, int]) -> Tensor:
        """Tokens float32 [len(frames), S, D] of video frames at 25 a second, as the sampler gives them."""
        states = self.read(key)
        before, after = window
        rows = np.stack([np.arange(2 * (i - before), 2 * (i + after + 1)).clip(0, len(states) - 1) for i in frames])
        return torch.from_numpy(np.ascontiguousarray(states[rows])).flatten(1, 2)


class LatentStore(FeatureStore):
    """Mean and deviation of every frame's latents, whole and masked: float32 [2, frames, 8, h, w].

    Sampling them is left to the step, so a training that reads them is the one that encodes each frame anew, in half
    the time.
    """

    @classmethod
    def of(cls, data: DataSet, vae_sha256: str, mask: Tensor) -> LatentStore:
        """The store of `data` for one VAE and one mask."""
        painted = hashlib.sha256(mask.cpu().numpy().tobytes()).hexdigest()
        return cls(data.folder / f"latents-{vae_sha256[:12]}-{painted[:8]}")

    @torch.no_grad()
    def fill(
        self,
        data: DataSet,
        rows: Sequence[SegmentRow],
        vae: Vae,
        mask: Tensor,
        progress: Counted = lambda _d, _t: None,
    ) -> None:
        """Compute what is missing of `rows`. Raises OutputError where it cannot be kept."""
        missing = self.missing(rows)
        for done, row in enumerate(missing):
            progress(done, len(missing))
            faces = data.faces(row, range(row.frames))
            moments: list[list[Tensor]] = [[], []]
            for start in range(0, row.frames, _VAE_FRAMES):
                pixels = pixels_of(faces[start : start + _VAE_FRAMES]).to(mask.device)
                for kept, seen in zip(moments, (pixels, pixels * mask), strict=True):
                    latents = vae.encode(seen)
                    kept.append(torch.cat([latents.mean, latents.deviation], dim=1).cpu())
            self.write(row.key, torch.stack([torch.cat(kept) for kept in moments]).numpy())

    def moments(self, key: str, frames: range, *, masked: bool) -> Tensor:
        """Mean and deviation of consecutive frames: float32 [n, 8, h, w]."""
        return torch.from_numpy(np.array(self.read(key)[int(masked), frames.start : frames.stop]))
