"""How well lsx-tiny moves its lips, on faces and sounds that it never saw: python -m examples.tiny.acceptance BUNDLE.

Each clip is dubbed with another voice through the whole path, detection included. The truth is what the generator
draws for that voice; measured are the result's own pixels.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from examples.tiny.clips import TinyClip, render_truth, tiny_clip
from examples.tiny.dataset import HELD_OUT, RESOLUTION
from examples.tiny.voice import speech
from lsx import LipSync, SamplingOptions
from lsx.bundle.sampling import sampling_of
from lsx.core.sampling import SAMPLERS
from lsx.faces.alignment import Aligner, crop_size
from lsx.metrics.lips import closed_share, lag, mouth_opening, mouth_psnr, sync_correlation

__all__ = ["Acceptance", "judge", "summary"]

FRAMES = 128
_MARGIN = 8  # pixels by which the detector may see a face elsewhere than it was drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceptance:
    """One identity with one sound."""

    seed: int
    correlation: float
    """Of the mouth's opening in the result with the truth."""
    wrong: float
    """With the truth of another sound."""
    lag: int
    """Frames by which the result is late."""
    psnr: float
    """Of the mouth's region against the truth, dB."""
    closed: float
    """Share of silent frames in which the mouth is shut; NaN where the sound has none."""
    shut: float
    """The same where all of the sound is silence."""
    outside: int
    """Largest difference from the video beyond the aligned face, levels."""


def judge(lipsync: LipSync, seed: int, options: SamplingOptions, frames: int = FRAMES) -> Acceptance:
    """Dub identity `seed` with the voice of seed + 500,000, and with silence."""
    clip = tiny_clip(seed, frames)
    truth = render_truth(clip, speech(frames / 25, seed + 500_000), frames)
    other = render_truth(clip, speech(frames / 25, seed + 600_000), frames)
    result = _dubbed(lipsync, clip.frames, truth.samples, options)
    measured = mouth_opening(result, clip.regions)
    silent = render_truth(clip, np.zeros(16 * 640, np.int16), 16)
    hushed = mouth_opening(_dubbed(lipsync, clip.frames[:16], silent.samples, options), clip.regions[:16])
    return Acceptance(
        seed=seed,
        correlation=sync_correlation(measured, truth.truth.opening),
        wrong=sync_correlation(measured, other.truth.opening),
        lag=lag(measured, truth.truth.opening),
        psnr=mouth_psnr(result, truth.frames, clip.regions),
        closed=closed_share(measured, truth.truth.opening),
        shut=closed_share(hushed, silent.truth.opening),
        outside=_outside(clip, result),
    )


def _outside(clip: TinyClip, result: NDArray[np.uint8]) -> int:
    aligner, (width, height), most = Aligner(RESOLUTION), crop_size(RESOLUTION), 0
    corners = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1]], np.float64)
    for frame, made, points in zip(clip.frames, result, clip.points, strict=True):
        covered = corners @ cv2.invertAffineTransform(aligner.affine(points)).T
        inside = np.zeros(frame.shape[:2], np.uint8)
        cv2.fillConvexPoly(inside, covered.round().astype(np.int32), 1)
        inside = cv2.dilate(inside, np.ones((2 * _MARGIN + 1,) * 2, np.uint8))
        most = max(most, int((cv2.absdiff(frame, made).max(axis=-1) * (1 - inside)).max()))
    return most


def _dubbed(lipsync: LipSync, frames: Any, samples: Any, options: SamplingOptions) -> Any:
    with lipsync.stream(list(frames), samples, len(frames), options) as stream:
        return np.stack(list(stream))


def summary(results: Iterable[Acceptance]) -> dict[str, float]:
    """Means and worst cases."""
    rows = list(results)
    values = {name: np.array([getattr(row, name) for row in rows], np.float64) for name in asdict(rows[0])}
    return {
        "correlation": float(values["correlation"].mean()),
        "worst correlation": float(values["correlation"].min()),
        "wrong sound": float(values["wrong"].mean()),
        "lag": float(np.abs(values["lag"]).max()),
        "psnr": float(values["psnr"].mean()),
        "worst psnr": float(values["psnr"].min()),
        "closed in silence": float(np.nanmean(values["closed"])),
        "shut": float(values["shut"].mean()),
        "outside": float(values["outside"].max()),
    }


def main() -> None:
    """Judge, print a line for each identity, and the summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--first", type=int, default=HELD_OUT)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--sampler", choices=SAMPLERS)
    parser.add_argument("--report", type=Path)
    given = parser.parse_args()
    chosen = {name: getattr(given, name) for name in ("steps", "guidance", "sampler")}
    results = []
    with LipSync.open(given.bundle) as lipsync:
        keywords = {name: value for name, value in chosen.items() if value is not None}
        options = sampling_of(lipsync.bundle, None, keywords, "options")
        for seed in range(given.first, given.first + given.count):
            results.append(judge(lipsync, seed, options, given.frames))
            print(results[-1], flush=True)
    print(json.dumps(summary(results), indent=1))
    if given.report is not None:
        content = {"options": asdict(options), "summary": summary(results), "clips": [asdict(r) for r in results]}
        given.report.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
