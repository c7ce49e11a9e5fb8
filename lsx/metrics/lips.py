"""Lips against the truth: how far a mouth is open in a picture's own pixels, and whether it follows the sound.

A region is x0, y0, x1, y1 in pixels round lips of any opening: one for all frames, or one a frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsx.errors import UsageError

__all__ = [
    "LipFigures",
    "closed_share",
    "crop_region",
    "lag",
    "lip_figures",
    "mouth_opening",
    "mouth_psnr",
    "sync_correlation",
]

Series = NDArray[np.floating[Any]]
Pictures = NDArray[Any]
Region = NDArray[np.floating[Any]]

_MIDDLE = 0.2  # share of the region's width whose columns are measured: there even a narrow mouth is open
_SKIN = 75  # percentile of the region's light that is skin
_DARK, _BRIGHT = 0.2, 0.75  # of the skin's light: wholly, and not at all, the inside of a mouth
_CROP_REGION = (72.0, 132.0, 184.0, 198.0)  # of an aligned face of 256 pixels


def crop_region(resolution: int) -> NDArray[np.float64]:
    """The mouth's region in an aligned face [resolution, resolution]: float64 [4]."""
    return np.array(_CROP_REGION) * resolution / 256


def mouth_opening(faces: Pictures, region: Region) -> NDArray[np.float64]:
    """How high the mouth's dark inside is in each of the clip's frames, as a share of its region's height: [n].

    faces : levels 0..255 RGB [n, H, W, 3] of one face, frames or aligned crops; region : [4] or [n, 4].

    Dark is what has little red and green beside the skin round it, of which lips of any colour have more; teeth do not
    count. Darkness grows evenly between two levels, so a blurred edge counts as a sharp one. A shut mouth has less than
    0.05, one wide open about 0.4. Raises UsageError where the region lies outside the pictures.
    """
    boxes = _boxes(faces, region)
    light = [face[y0:y1, x0:x1, :2].mean(axis=2) for face, (x0, y0, x1, y1) in zip(faces, boxes, strict=True)]
    skin = float(np.percentile(np.concatenate([part.ravel() for part in light]), _SKIN))
    heights = np.empty(len(light))
    for number, part in enumerate(light):
        margin = round(part.shape[1] * (1 - _MIDDLE) / 2)
        middle = part[:, margin : part.shape[1] - margin]
        dark = np.clip((_BRIGHT * skin - middle) / max((_BRIGHT - _DARK) * skin, 1e-9), 0, 1)
        heights[number] = dark.mean()
    return heights


@dataclass(frozen=True, slots=True, kw_only=True)
class LipFigures:
    """Lips of a clip against the truth of the same clip."""

    correlation: float
    """Correlation of the mouth's opening, -1..1; NaN where a picture has NaN."""
    lag: int
    """Frames by which the lips come late."""
    psnr: float
    """PSNR of the mouth's region, dB."""

    def __str__(self) -> str:
        return f"sync correlation {self.correlation:.3f}, lag {self.lag:+d} frames, mouth PSNR {self.psnr:.1f} dB"


def lip_figures(faces: Pictures, truth: Pictures) -> LipFigures:
    """Aligned faces against aligned faces of what ought to be seen, levels [n, R, R, 3] both, at least two frames.

    Raises UsageError for pictures of two shapes.
    """
    region = crop_region(faces.shape[1])
    psnr = mouth_psnr(faces, truth, region)
    opened, ought = mouth_opening(faces, region), mouth_opening(truth, region)
    correlation = sync_correlation(opened, ought)
    return LipFigures(correlation=correlation, lag=lag(opened, ought) if np.isfinite(opened).all() else 0, psnr=psnr)


def sync_correlation(measured: Series, truth: Series) -> float:
    """Pearson's correlation of two series [n]; 0 where either is constant, NaN where either has one."""
    a, b = _pair(measured, truth)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def lag(measured: Series, truth: Series, most: int = 5) -> int:
    """Frames by which `measured` comes after `truth`: the shift of the highest correlation, -most to most.

    Only shifts that leave half of the frames are tried; of equals the smallest is taken, so a constant series has 0.
    """
    a, b = _pair(measured, truth)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise UsageError("a series of lips has NaN or infinite values; its lag is not known")
    best, found = -np.inf, 0
    for shift in sorted(range(-most, most + 1), key=abs):
        kept = len(a) - abs(shift)
        if shift and 2 * kept < len(a):
            continue
        late, early = max(shift, 0), max(-shift, 0)
        value = sync_correlation(a[late : late + kept], b[early : early + kept])
        if value > best + 1e-12:
            best, found = value, shift
    return found


def mouth_psnr(result: Pictures, truth: Pictures, region: Region) -> float:
    """Peak signal-to-noise ratio in dB over the regions of all frames [n, H, W, 3], levels 0..255.

    Infinite where nothing differs. Raises UsageError for pictures of two shapes.
    """
    if result.shape != truth.shape:
        raise UsageError(f"pictures of shape {result.shape} against a truth of {truth.shape}; give as many, as large")
    total, count = 0.0, 0
    for ours, theirs, (x0, y0, x1, y1) in zip(result, truth, _boxes(result, region), strict=True):
        error = ours[y0:y1, x0:x1].astype(np.float64) - theirs[y0:y1, x0:x1].astype(np.float64)
        total, count = total + float((error**2).sum()), count + error.size
    return float("inf") if total == 0 else float(10 * np.log10(255**2 * count / total))


def closed_share(measured: Series, truth: Series, *, limit: float = 0.05, shut: float = 0.01) -> float:
    """Share of the frames with a truth of at most `shut` in which less than `limit` is measured; NaN without any."""
    found, wanted = _pair(measured, truth)
    silent = wanted <= shut
    return float((found[silent] < limit).mean()) if silent.any() else float("nan")


def _pair(measured: Series, truth: Series) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both in float64. Raises UsageError unless they are of one length."""
    a, b = np.asarray(measured, np.float64), np.asarray(truth, np.float64)
    if a.ndim != 1 or a.shape != b.shape or not len(a):
        raise UsageError(f"{a.shape} frames measured against {b.shape} of truth; give one number for each frame")
    return a, b


def _boxes(faces: Pictures, region: Region) -> NDArray[np.intp]:
    """Regions as whole pixels inside the pictures, [n, 4]."""
    height, width = faces.shape[1:3]
    low, high = np.zeros(4), np.array([width, height, width, height])
    boxes = np.clip(np.rint(np.broadcast_to(region, (len(faces), 4))), low, high).astype(np.intp)
    if not (boxes[:, 2:] - boxes[:, :2] >= 4).all():
        raise UsageError(f"a mouth's region lies outside pictures of {width} x {height}; give x0, y0, x1, y1 in pixels")
    return boxes
