"""What a training step looks at: frames, sound and noise, each a function of the seed and a running number alone.

So a run that was stopped goes on exactly, and two processes draw what one would that accumulates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from lsx.core.sync_mel import SyncMel, latest_window
from lsx.errors import UsageError
from lsx.models.pixels import pixels_of
from lsx.training.feature_store import LatentStore, TokenStore
from lsx.training.shards import DataSet, SegmentRow

__all__ = ["LatentSamples", "MicroBatches", "SampleOptions", "Shuffle", "SyncNetSamples", "UNetSamples", "usable_rows"]

_FRAMES = 16
_DIFFUSION_STEPS = 1000


def usable_rows(data: DataSet, resolution: int) -> tuple[SegmentRow, ...]:
    """The segments that are long enough to take target and reference from: 48 frames, as in the original.

    Raises UsageError for data of another resolution, and where none is long enough.
    """
    if data.info.resolution != resolution:
        raise UsageError(
            f"{data.folder}: its faces are of {data.info.resolution} px, the configuration says {resolution}. "
            f"Prepare again: lsx data prepare --resolution {resolution}"
        )
    rows = tuple(row for row in data.rows if row.frames >= 3 * _FRAMES)
    if not rows:
        raise UsageError(f"{data.folder}: no segment of {3 * _FRAMES} frames or more in it; nothing to train on")
    return rows


def _generator(seed: int, number: int, purpose: int) -> np.random.Generator:
    """Random numbers of one sample. number : counted over the whole training."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, number], np.uint64), counter=purpose << 64))


@dataclass(frozen=True, slots=True)
class Shuffle:
    """Passes over `count` segments, each in an order of its own."""

    seed: int
    count: int

    def __call__(self, number: int) -> int:
        """The segment of sample `number`."""
        epoch, place = divmod(number, self.count)
        return int(_order(self.seed, self.count, epoch)[place])


@lru_cache(maxsize=2)
def _order(seed: int, count: int, epoch: int) -> NDArray[np.int64]:
    return _generator(seed, epoch, 1).permutation(count)


class MicroBatches(Sampler[list[int]]):
    """Sample numbers of this process's forwards, from a step on: the batches of all processes follow one another."""

    def __init__(self, *, first_step: int, steps: int, accumulate: int, batch: int, rank: int = 0, world: int = 1):
        self._steps = range(first_step, steps)
        self._accumulate, self._batch, self._rank, self._world = accumulate, batch, rank, world

    def __len__(self) -> int:
        return len(self._steps) * self._accumulate

    def __iter__(self) -> Iterator[list[int]]:
        for step in self._steps:
            for forward in range(self._accumulate):
                first = ((step * self._accumulate + forward) * self._world + self._rank) * self._batch
                yield list(range(first, first + self._batch))


def _faces(data: DataSet, row: SegmentRow, start: int) -> Tensor:
    """Float32 [16, 3, R, R] in -1..1."""
    return pixels_of(data.faces(row, range(start, start + _FRAMES)))


def _mel(data: DataSet, row: SegmentRow, start: int) -> Tensor:
    """Float32 [1, 80, 52]: the sound of the 16 frames from `start` on."""
    return torch.from_numpy(SyncMel(data.samples(row)).window(start))[None]


def _latest_start(row: SegmentRow) -> int:
    """The last frame at which a window of frames and of sound can begin; the sound's is a little longer."""
    return latest_window(row.frames * 640 // 200 + 1, row.frames)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleOptions:
    """How the U-Net's samples are drawn."""

    seed: int
    window: tuple[int, int] = (2, 2)
    """Video frames before and after, whose sound a frame hears."""
    dropout: float = 0.0
    """Share of samples whose tokens are zeros."""
    frames: int = 16
    """Frames of each window that are kept, evenly apart."""


class UNetSamples(Dataset[dict[str, Tensor]]):
    """Samples of the U-Net's training, by running number.

    Each: target and reference faces [16, 3, R, R], that do not overlap; the target's tokens [16, S, D] and mel window
    [1, 80, 52]; the step's noise.
    """

    def __init__(
        self,
        data: DataSet,
        rows: Sequence[SegmentRow],
        tokens: TokenStore,
        options: SampleOptions,
        *,
        latents: LatentStore | None = None,
        faces: bool = True,
        mel: bool = True,
    ) -> None:
        """latents : where `moments` [3, 16, 8, h, w] of a sample are read; faces, mel : whether a sample has them."""
        self._data, self._rows, self._tokens, self._options = data, rows, tokens, options
        self._latents, self._with_faces, self._with_mel = latents, faces, mel
        self._shuffle = Shuffle(options.seed, len(rows))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        row = self._rows[self._shuffle(number)]
        random = _generator(self._options.seed, number, 2)
        start = int(random.integers(0, _latest_start(row) + 1))
        beside = [s for s in range(row.frames - _FRAMES + 1) if abs(s - start) >= _FRAMES]
        reference = beside[int(random.integers(0, len(beside)))]
        side = self._data.info.resolution // 8
        frame = (_FRAMES, 4, side, side)
        draws = {name: _normal(random, frame) for name in ("noise.target", "noise.masked", "noise.reference")}
        timestep = int(random.integers(0, _DIFFUSION_STEPS))
        audio = self._tokens.tokens(row.key, range(start, start + _FRAMES), self._options.window)
        sample = (
            draws
            | self._pictures(row, start, reference)
            | {
                "audio": audio * float(random.random() >= self._options.dropout),
                "timestep": torch.tensor(timestep),
                "noise.shared": _normal(random, (4, 1, side, side)),
                "noise.independent": _normal(random, (4, _FRAMES, side, side)),
            }
        )
        if self._with_mel:
            sample["mel"] = _mel(self._data, row, start)
        return _thinned(sample, number, self._options.frames)

    def _pictures(self, row: SegmentRow, target: int, reference: int) -> dict[str, Tensor]:
        """Faces of the two windows, or the moments of their latents, or both."""
        pictures = {}
        if self._with_faces:
            pictures = {"target": _faces(self._data, row, target), "reference": _faces(self._data, row, reference)}
        if self._latents is not None:
            windows = [(target, False), (target, True), (reference, False)]
            moments = [
                self._latents.moments(row.key, range(start, start + _FRAMES), masked=masked)
                for start, masked in windows
            ]
            pictures["moments"] = torch.stack(moments)
        return pictures


_FRAME_AXES = {"moments": 1, "noise.independent": 1, "audio": 0, "target": 0, "reference": 0}
_FRAME_AXES |= {f"noise.{name}": 0 for name in ("target", "masked", "reference")}


def _thinned(sample: dict[str, Tensor], number: int, frames: int) -> dict[str, Tensor]:
    """A sample with `frames` of its 16 frames, evenly apart; the first of them goes round with the sample's number."""
    stride = _FRAMES // frames
    kept = slice(number % stride, None, stride)
    places = {name: (*(slice(None),) * axis, kept) for name, axis in _FRAME_AXES.items()}
    return {name: value[places[name]] if name in places else value for name, value in sample.items()}


def _normal(random: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(random.standard_normal(shape, dtype=np.float32))


class LatentSamples(Dataset[dict[str, Tensor]]):
    """Samples of a decoder's training, by running number: `latents` [4, h, w] of one frame, not scaled.

    Half of them have up to half of another frame of the same face in them: what a U-Net makes of a sound is between
    faces more often than what the encoder makes of a picture.
    """

    def __init__(self, rows: Sequence[SegmentRow], latents: LatentStore, seed: int) -> None:
        self._rows, self._latents, self._seed = rows, latents, seed
        self._shuffle = Shuffle(seed, len(rows))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        row = self._rows[self._shuffle(number)]
        random = _generator(self._seed, number, 4)
        frames, share = random.integers(0, row.frames, 2), max(float(random.uniform(-0.5, 0.5)), 0.0)
        one, other = (self._latents.moments(row.key, range(f, f + 1), masked=False)[0] for f in frames)
        mean, deviation = ((1 - share) * one + share * other).chunk(2)
        return {"latents": mean + deviation * _normal(random, (*mean.shape,))}


class SyncNetSamples(Dataset[dict[str, Tensor]]):
    """Samples of SyncNet's training, by running number: faces [16, 3, R, R], a mel window, and whether they belong
    together (1) or the faces are of another place of the same segment (0), with equal chance.

    paired : two samples in a row have the same sound, once with its faces and once with others.
    """

    def __init__(self, data: DataSet, rows: Sequence[SegmentRow], seed: int, *, paired: bool = False) -> None:
        self._data, self._rows, self._seed, self._paired = data, rows, seed, paired
        self._shuffle = Shuffle(seed, len(rows))

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> dict[str, Any]:
        drawn, second = divmod(number, 2) if self._paired else (number, 0)
        row = self._rows[self._shuffle(drawn)]
        random = _generator(self._seed, drawn, 3)
        heard = int(random.integers(0, _latest_start(row) + 1))
        together = not second if self._paired else bool(random.integers(0, 2))
        others = [s for s in range(row.frames - _FRAMES + 1) if s != heard]
        seen = heard if together else others[int(random.integers(0, len(others)))]
        return {
            "faces": _faces(self._data, row, seen),
            "mel": _mel(self._data, row, heard),
            "together": torch.tensor(float(together)),
        }
