"""Can the sound's tokens tell the mouth? A linear readout: python -m examples.tiny.readout CHECKPOINT.

The tokens are those that the U-Net is given, of the checkpoint's Whisper encoder; `lsx random-checkpoint` makes one.
What a ridge regression finds in them, attention finds too.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from examples.tiny.mouth import FRAME_SAMPLES, mouth_track
from examples.tiny.voice import SAMPLE_RATE, speech
from lsx.metrics.lips import sync_correlation

__all__ = ["readout"]

_FRAMES = 125
_WINDOW = (2, 2)  # frames before and after, as in the released models


def readout(encoder: Any, trained_on: range, tested_on: range, ridge: float = 0.1) -> tuple[list[float], list[float]]:
    """Correlation of opening and width, read from tokens, with the truth: one number a tested clip of 5 s.

    encoder : lsx.models.whisper.AudioEncoder; the ranges are of voices' seeds. ridge : penalty, of normalised tokens.
    """
    known = [_clip(encoder, seed) for seed in trained_on]
    tokens, truth = (np.concatenate(parts) for parts in zip(*known, strict=True))
    mean, scale = tokens.mean(0), tokens.std(0) + 1e-3
    seen = (tokens - mean) / scale
    # More tokens than frames: the dual form solves for one weight a frame.
    gram = seen @ seen.T / seen.shape[1]
    level = truth.mean(0)
    weights = np.linalg.solve(gram + ridge * np.eye(len(gram)), truth - level)
    found: tuple[list[float], list[float]] = ([], [])
    for seed in tested_on:
        unseen, wanted = _clip(encoder, seed)
        read = (unseen - mean) / scale @ seen.T / seen.shape[1] @ weights + level
        voiced = wanted[:, 0] > 0.1
        found[0].append(sync_correlation(read[:, 0], wanted[:, 0]))
        found[1].append(sync_correlation(read[voiced, 1], wanted[voiced, 1]))
    return found


def _clip(encoder: Any, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Tokens [frames, S * D] and opening and width [frames, 2] of a voice."""
    import torch

    from lsx.models.reference import audio_tokens

    samples = speech(_FRAMES * FRAME_SAMPLES / SAMPLE_RATE, seed)
    sound = torch.from_numpy(samples.astype(np.float32) / np.float32(32768))
    tokens = audio_tokens(encoder, sound, range(_FRAMES), _WINDOW).flatten(1).numpy()
    truth = mouth_track(samples, _FRAMES)
    return tokens.astype(np.float64), np.stack([truth.opening, truth.width], axis=1)


def main() -> None:
    """Print how well opening and width are read from 10 unseen voices after 20 others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="folder with whisper/tiny.pt")
    options = parser.parse_args()
    from lsx.models.checkpoint import Checkpoint
    from lsx.models.checkpoint_files import CheckpointFiles

    encoder = Checkpoint(CheckpointFiles.in_folder(options.checkpoint)).audio_encoder()
    for name, found in zip(("opening", "width"), readout(encoder, range(20), range(1000, 1010)), strict=True):
        print(f"{name}: correlation {np.mean(found):.3f} on average, {min(found):.3f} at worst")


if __name__ == "__main__":
    main()
