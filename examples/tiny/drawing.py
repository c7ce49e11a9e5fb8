"""A canvas measured in centimetres: antialiased polygons, soft edges and fields of colour, on cv2 and NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["Canvas", "Window", "ellipse_points", "smooth_curve", "smoothstep"]

Floats = NDArray[np.float32]
Colour = tuple[float, float, float]
Window = tuple[slice, slice]

_SUBPIXEL = 4  # bits of cv2's fixed-point coordinates


def smoothstep(low: float, high: float, value: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """0 at `low`, 1 at `high`, a cubic between, level beyond."""
    share = np.clip((value - low) / (high - low), 0, 1)
    return np.asarray(share * share * (3 - 2 * share))


def smooth_curve(corners: Sequence[tuple[float, float]], *, closed: bool, steps: int = 10) -> NDArray[np.float64]:
    """Points [n, 2] of the Catmull-Rom curve through `corners`."""
    points = np.asarray(corners, dtype=np.float64)
    count = len(points) if closed else len(points) - 1
    index = np.arange(count)[:, None] + np.arange(-1, 3)
    index = index % len(points) if closed else np.clip(index, 0, len(points) - 1)
    p0, p1, p2, p3 = (points[index[:, k]][:, None] for k in range(4))
    t = (np.arange(steps) / steps)[None, :, None]
    curve = 0.5 * (2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * (p1 - p2) + p3 - p0) * t**3)
    flat = curve.reshape(-1, 2)
    return flat if closed else np.concatenate([flat, points[-1:]])


def ellipse_points(x: float, y: float, rx: float, ry: float, turn: float = 0.0) -> NDArray[np.float64]:
    """48 points [48, 2] of an ellipse; turn : radians, clockwise in the picture."""
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    across, down = rx * np.cos(angle), ry * np.sin(angle)
    cosine, sine = np.cos(turn), np.sin(turn)
    return np.stack([x + cosine * across - sine * down, y + sine * across + cosine * down], axis=1)


class Canvas:
    """A picture with an alpha channel, drawn in centimetres, y downwards.

    planes : float32 [4, h, w] in 0..1: red, green, blue, multiplied by alpha, and alpha. Pixel (i, j) has its centre at
    (x0 + (j + 0.5) / scale, y0 + (i + 0.5) / scale).
    """

    def __init__(self, box: tuple[float, float, float, float], scale: float, planes: Floats | None = None) -> None:
        """box : x0, y0, x1, y1 in cm; scale : pixels per cm; planes : drawn upon in place, by default transparent."""
        self.box, self.scale = box, scale
        shape = (4, round((box[3] - box[1]) * scale), round((box[2] - box[0]) * scale))
        self.planes: Floats = np.zeros(shape, np.float32) if planes is None else planes

    def window(self, x0: float, y0: float, x1: float, y1: float) -> Window:
        """The pixels of a box in cm, cut at the canvas."""
        height, width = self.planes.shape[1:]
        left, right = (int(np.clip((x - self.box[0]) * self.scale, 0, width)) for x in (x0, x1))
        top, bottom = (int(np.clip((y - self.box[1]) * self.scale, 0, height)) for y in (y0, y1))
        return slice(top, bottom), slice(left, right)

    def grid(self, window: Window) -> tuple[Floats, Floats]:
        """x [1, w] and y [h, 1] of the window's pixels, cm."""
        y = (np.arange(window[0].start, window[0].stop, dtype=np.float32) + 0.5) / self.scale + self.box[1]
        x = (np.arange(window[1].start, window[1].stop, dtype=np.float32) + 0.5) / self.scale + self.box[0]
        return x[None].astype(np.float32), y[:, None].astype(np.float32)

    def paint(self, window: Window, coverage: Floats, colour: Colour | Floats, *, inside: bool = False) -> None:
        """Blend `colour` (one, or a field [h, w, 3]) over the window, by `coverage` [h, w]; inside : alpha stays."""
        part = self.planes[:, *window]
        alpha = part[3]
        coverage = coverage.astype(np.float32, copy=False)
        under = coverage * alpha if inside else coverage
        kept = 1 - coverage
        for channel in range(3):
            level = np.float32(colour[channel]) if isinstance(colour, tuple) else colour[..., channel]
            part[channel] *= kept
            part[channel] += under * level
        if not inside:
            alpha *= kept
            alpha += coverage

    def coverage(self, points: NDArray[np.float64], soft: float = 0.0) -> tuple[Window, Floats]:
        """The part of each pixel that a polygon [n, 2] covers, blurred by a Gaussian of sigma `soft` cm."""
        margin = 3 * soft + 2 / self.scale
        low, high = points.min(0) - margin, points.max(0) + margin
        window = self.window(float(low[0]), float(low[1]), float(high[0]), float(high[1]))
        shape = (window[0].stop - window[0].start, window[1].stop - window[1].start)
        if 0 in shape:
            return window, np.zeros(shape, np.float32)
        at = (points - self.box[:2]) * self.scale - 0.5 - (window[1].start, window[0].start)
        filled = np.zeros(shape, np.uint8)
        fixed = np.round(at * (1 << _SUBPIXEL)).astype(np.int32)
        cv2.fillPoly(filled, [fixed], 255, lineType=cv2.LINE_AA, shift=_SUBPIXEL)
        covered = filled.astype(np.float32) / np.float32(255)
        if soft * self.scale > 0.2:
            covered = np.asarray(cv2.GaussianBlur(covered, (0, 0), soft * self.scale), dtype=np.float32)
        return window, covered

    def polygon(
        self,
        points: NDArray[np.float64],
        colour: Colour | Floats,
        *,
        soft: float = 0.0,
        opacity: float = 1.0,
        inside: bool = False,
    ) -> None:
        """A filled polygon [n, 2]; soft : sigma of its edge, cm."""
        window, covered = self.coverage(points, soft)
        self.paint(window, covered * np.float32(opacity), colour, inside=inside)

    def ellipse(
        self, x: float, y: float, rx: float, ry: float, colour: Colour, *, soft: float = 0.0, opacity: float = 1.0
    ) -> None:
        """A filled ellipse on what is there; alpha stays."""
        self.polygon(ellipse_points(x, y, rx, ry), colour, soft=soft, opacity=opacity, inside=True)

    def stroke(
        self,
        points: NDArray[np.float64],
        thickness: float | NDArray[np.float64],
        colour: Colour,
        *,
        soft: float = 0.0,
        opacity: float = 1.0,
        inside: bool = True,
    ) -> None:
        """A line through points [n, 2], `thickness` cm wide (one, or one a point); inside : alpha stays."""
        along = np.gradient(points, axis=0)
        across = np.stack([-along[:, 1], along[:, 0]], 1) / np.maximum(np.linalg.norm(along, axis=1), 1e-9)[:, None]
        half = np.broadcast_to(np.asarray(thickness) / 2, len(points))[:, None]
        outline = np.concatenate([points + across * half, (points - across * half)[::-1]])
        self.polygon(outline, colour, soft=soft, opacity=opacity, inside=inside)
