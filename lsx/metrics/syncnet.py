"""SyncNet: how well lips and sound go together, and how far apart they are, where its weights are given.

Source: Chung and Zisserman, Out of time: automated lip sync in the wild, 2016; weights `syncnet_v2.model`. LatentSync's
own figures are of S3FD's crops; here it looks at the aligned faces, so compare engine with reference, not with those.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lsx.metrics.weight_files import SYNCNET_FILE
from lsx.models.checkpoint import load_strict, read_tensors

__all__ = ["SyncFigures", "SyncNet", "SyncNetModel", "mfcc"]

_FRAMES, _ROWS = 5, 20  # of one look: 0.2 s
_SHIFT = 15  # frames each way
_EDGE = 224


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncFigures:
    """SyncNet's verdict. offset in frames at 25 a second, positive where the sound comes early."""

    confidence: float
    distance: float
    offset: int


class SyncNetModel(nn.Module):
    """SyncNet's two towers, under the names of the published weights."""

    def __init__(self) -> None:
        super().__init__()

        def sound(before: int, after: int, kernel: Any = 3, padding: int = 1) -> list[nn.Module]:
            return [nn.Conv2d(before, after, kernel, padding=padding), nn.BatchNorm2d(after), nn.ReLU()]

        def lips(before: int, after: int, kernel: Any, **kw: Any) -> list[nn.Module]:
            return [nn.Conv3d(before, after, kernel, **kw), nn.BatchNorm3d(after), nn.ReLU()]

        def head() -> nn.Sequential:
            return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024))

        inside = {"kernel": (1, 3, 3), "padding": (0, 1, 1)}
        self.netcnnaud = nn.Sequential(
            *sound(1, 64),
            nn.MaxPool2d(1, stride=1),
            *sound(64, 192),
            nn.MaxPool2d(3, stride=(1, 2)),
            *sound(192, 384),
            *sound(384, 256),
            *sound(256, 256),
            nn.MaxPool2d(3, stride=2),
            *sound(256, 512, (5, 4), 0),
        )
        self.netcnnlip = nn.Sequential(
            *lips(3, 96, (5, 7, 7), stride=(1, 2, 2)),
            nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2)),
            *lips(96, 256, (1, 5, 5), stride=(1, 2, 2), padding=(0, 1, 1)),
            nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1)),
            *lips(256, 256, **inside),
            *lips(256, 256, **inside),
            *lips(256, 256, **inside),
            nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2)),
            *lips(256, 512, (1, 6, 6)),
        )
        self.netfcaud, self.netfclip = head(), head()

    def sound(self, features: Tensor) -> Tensor:
        """[n, 1, 13, 20] to [n, 1024]."""
        out: Tensor = self.netfcaud(self.netcnnaud(features).flatten(1))
        return out

    def lips(self, frames: Tensor) -> Tensor:
        """[n, 3, 5, 224, 224] BGR in levels to [n, 1024]."""
        out: Tensor = self.netfclip(self.netcnnlip(frames).flatten(1))
        return out


class SyncNet:
    """SyncNet on aligned faces."""

    def __init__(self, folder: Path) -> None:
        file = folder / SYNCNET_FILE
        with torch.device("meta"):
            self._model = SyncNetModel()
        counters = {k: torch.zeros(()) for k in self._model.state_dict() if k.endswith("num_batches_tracked")}
        load_strict(self._model, counters | read_tensors(file), file)  # PyTorch before 0.4.1 did not count

    def judge(self, faces: NDArray[np.uint8], samples: NDArray[np.int16]) -> SyncFigures | None:
        """faces uint8 [n, H, W, 3] RGB at 25 a second, and the sound from the first one on. None for under 6 frames."""
        features = mfcc(samples)
        count = min(len(faces), len(features) // 4) - _FRAMES
        if count < 1:
            return None
        with torch.inference_mode():
            lips = torch.cat([self._model.lips(batch) for batch in _looks(faces, count)])
            rows = np.stack([features[4 * i : 4 * i + _ROWS].T for i in range(count)])
            sound = self._model.sound(torch.from_numpy(rows[:, None].astype(np.float32)))
            padded = nn.functional.pad(sound, (0, 0, _SHIFT, _SHIFT))
            near = padded.unfold(0, 2 * _SHIFT + 1, 1).transpose(1, 2)  # [count, 2 * shift + 1, 1024]
            apart = torch.pairwise_distance(lips[:, None], near).mean(0)
        best = int(apart.argmin())
        return SyncFigures(
            confidence=float(apart.median() - apart[best]), distance=float(apart[best]), offset=_SHIFT - best
        )


def _looks(faces: NDArray[np.uint8], count: int, batch: int = 16) -> Iterator[Tensor]:
    frames = np.stack([cv2.resize(f[:, :, ::-1], (_EDGE, _EDGE)) for f in faces[: count + _FRAMES]])
    stacked = torch.from_numpy(frames.astype(np.float32)).permute(3, 0, 1, 2)
    for start in range(0, count, batch):
        yield torch.stack([stacked[:, i : i + _FRAMES] for i in range(start, min(start + batch, count))])


def mfcc(samples: NDArray[np.int16]) -> NDArray[np.float64]:
    """13 cepstral coefficients of every 10 ms, float64 [n, 13], the first replaced by the log energy.

    Windows of 25 ms without tapering, pre-emphasis 0.97, FFT of 512, 26 mel filters from 0 to 8 kHz, orthonormal DCT,
    lifter 22. Source: the defaults of the `python_speech_features` package, which SyncNet was trained with.
    """
    signal = samples.astype(np.float64)
    signal = np.append(signal[:1], signal[1:] - 0.97 * signal[:-1])
    count = 1 if len(signal) <= 400 else 1 + -(-(len(signal) - 400) // 160)
    signal = np.pad(signal, (0, max((count - 1) * 160 + 400 - len(signal), 0)))
    frames = np.lib.stride_tricks.sliding_window_view(signal, 400)[::160][:count]
    power = np.abs(np.fft.rfft(frames, 512)) ** 2 / 512
    tiny = np.finfo(np.float64).eps
    energy = np.where(power.sum(1) == 0, tiny, power.sum(1))
    mels = np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 28)
    bins = np.floor(513 * 700 * (10 ** (mels / 2595) - 1) / 16000)
    place = np.arange(257)
    low, middle, high = bins[:-2, None], bins[1:-1, None], bins[2:, None]
    rising = np.where((place >= low) & (place < middle), (place - low) / np.maximum(middle - low, 1), 0)
    falling = np.where((place >= middle) & (place < high), (high - place) / np.maximum(high - middle, 1), 0)
    filtered = power @ (rising + falling).T
    logs = np.log(np.where(filtered == 0, tiny, filtered))
    index = np.arange(26)
    basis = np.cos(np.pi * np.arange(13)[:, None] * (2 * index + 1) / 52) * np.sqrt(2 / 26)
    basis[0] /= np.sqrt(2)
    coefficients = logs @ basis.T * (1 + 11 * np.sin(np.pi * np.arange(13) / 22))
    coefficients[:, 0] = np.log(energy)
    return np.asarray(coefficients)
