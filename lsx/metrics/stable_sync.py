"""StableSyncNet as a judge: how well aligned faces and sound go together, and at which shift they do best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lsx.core.sync_mel import SYNC_FRAMES, SYNC_SHIFT, SYNC_STRIDE, latest_window, mel_window, syncnet_mel
from lsx.errors import UsageError
from lsx.models.pixels import pixels_of
from lsx.models.stable_syncnet import STABLE_SYNCNET_FILE, StableSyncNet, load_syncnet, lower_half

__all__ = ["StableSync", "StableSyncFigures", "cosines_by_offset", "offset_histogram"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StableSyncFigures:
    """StableSyncNet's verdict. offset in frames at 25 a second, positive where the sound comes early."""

    cosine: float
    """Mean cosine of frames and sound as they are, 0..1."""
    margin: float
    """How far the best shift's cosine is above the median of all shifts."""
    offset: int
    """The best shift."""


class StableSync:
    """StableSyncNet on aligned faces; from a `stable_syncnet.pt`, or a network that is being trained."""

    def __init__(self, network: StableSyncNet | Path) -> None:
        self._network = load_syncnet(network) if isinstance(network, Path) else network

    @classmethod
    def in_folder(cls, folder: Path) -> StableSync:
        """StableSyncNet from a folder of auxiliary weights. Raises UsageError without it, CheckpointError."""
        if not (folder / STABLE_SYNCNET_FILE).is_file():
            raise UsageError(f"{folder}: no {STABLE_SYNCNET_FILE} in it to judge with")
        return cls(folder / STABLE_SYNCNET_FILE)

    def judge(self, faces: NDArray[np.uint8], samples: NDArray[np.int16]) -> StableSyncFigures | None:
        """faces uint8 [n, H, W, 3] RGB at 25 a second, and the sound from the first one on: int16 at 16 kHz.

        None where they are too short to be shifted: under 32 frames.
        """
        table = cosines_by_offset(self._network, faces, samples)
        if table is None:
            return None
        means = table.mean(0)
        best = int(means.argmax())
        return StableSyncFigures(
            cosine=float(means[SYNC_SHIFT]), margin=float(means[best] - np.median(means)), offset=SYNC_SHIFT - best
        )


def cosines_by_offset(
    network: StableSyncNet, faces: NDArray[np.uint8], samples: NDArray[np.int16]
) -> NDArray[np.float64] | None:
    """Cosines of 16-frame windows with the sound from 7 frames before to 7 after: [windows, 15], or None."""
    mel = syncnet_mel(samples.astype(np.float32) / 32768)
    last = latest_window(mel.shape[1], len(faces)) - SYNC_SHIFT
    starts = range(SYNC_SHIFT, last + 1, SYNC_STRIDE)
    if not starts:
        return None
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        seen = torch.cat([_seen(network, faces[s : s + SYNC_FRAMES], device) for s in starts])
        heard = {s: _heard(network, mel, s, device) for s in range(starts[0] - SYNC_SHIFT, starts[-1] + SYNC_SHIFT + 1)}
        rows = [
            torch.stack([heard[start + shift] @ vector for shift in range(-SYNC_SHIFT, SYNC_SHIFT + 1)])
            for start, vector in zip(starts, seen, strict=True)
        ]
    network.train(was_training)
    return np.asarray(torch.stack(rows).double().cpu().numpy())


def _seen(network: StableSyncNet, faces: NDArray[np.uint8], device: Any) -> Tensor:
    looks = lower_half(pixels_of(faces).to(device), network.config.resolution)
    out: Tensor = torch.nn.functional.normalize(network.visual_encoder(looks))
    return out


def _heard(network: StableSyncNet, mel: NDArray[np.float32], start: int, device: Any) -> Tensor:
    window = torch.from_numpy(np.ascontiguousarray(mel_window(mel, start)))[None, None].to(device)
    out: Tensor = torch.nn.functional.normalize(network.audio_encoder(window))[0]
    return out


def offset_histogram(offsets: Sequence[int]) -> dict[int, int]:
    """How many windows do best at each shift."""
    return {shift: list(offsets).count(shift) for shift in range(-SYNC_SHIFT, SYNC_SHIFT + 1)}
