"""The parts of a tiny face that move: eyes that blink and look, a mouth that opens and widens."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from examples.tiny.drawing import Canvas, Colour
from examples.tiny.head import darker, lighter
from examples.tiny.identity import Identity

__all__ = ["DROP", "RAISE", "draw_eyes", "draw_mouth", "mouth_box", "mouth_half_width"]

Floats = NDArray[np.float32]

RAISE, DROP = 0.3, 2.3
"""How far the lips' inner edges move from the line, up and down, at opening 1: cm. Together 0.16 of a face of 16.2."""

_INSIDE: Colour = (0.15, 0.035, 0.045)
_TONGUE: Colour = (0.4, 0.11, 0.13)
_TEETH: Colour = (0.96, 0.94, 0.9)


def _band(y: Floats, top: Floats, bottom: Floats, scale: float) -> Floats:
    """Share of each pixel between two curves, [h, w]; `top` and `bottom` [1, w] are y over x, in cm."""
    steep_top, steep_bottom = (np.hypot(1, np.gradient(curve[0]) * scale)[None] for curve in (top, bottom))
    inside = np.minimum((y - top) / steep_top, (bottom - y) / steep_bottom)
    there = np.clip((bottom - top) * np.float32(scale), 0, 1)
    return np.asarray(np.clip(inside * np.float32(scale) + 0.5, 0, 1) * there, dtype=np.float32)


def mouth_half_width(identity: Identity, width: float) -> float:
    """Half the distance between the corners at `width` 0..1, cm."""
    return identity.mouth_width * (0.7 + 0.42 * width)


def mouth_box(identity: Identity) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1 in cm, round lips of any opening and width."""
    half = mouth_half_width(identity, 1) + 0.25
    top = identity.mouth_y - RAISE - 1.2 * identity.upper_lip
    return -half, top - 0.1, half, identity.mouth_y + DROP + identity.lower_lip + 0.25


def draw_mouth(canvas: Canvas, identity: Identity, opening: float, width: float) -> None:
    """Lips, and between them the dark, teeth and tongue. opening, width : 0..1."""
    x0, y0, x1, y1 = mouth_box(identity)
    window = canvas.window(x0 - 0.3, y0 - 0.3, x1 + 0.3, y1 + 0.9)
    x, y = canvas.grid(window)
    u = x / np.float32(mouth_half_width(identity, width))
    arch = np.clip(1 - u * u, 0, 1)
    line = identity.mouth_y - identity.smile * (np.minimum(u * u, 1.2) - 0.25) + 0.07 * np.exp(-((u / 0.2) ** 2))
    top = line - RAISE * opening * arch**0.75
    bottom = line + DROP * opening * arch**0.6
    pout = 1.12 - 0.2 * width
    bow = arch**0.8 * (1 + 0.2 * np.exp(-(((np.abs(u) - 0.27) / 0.2) ** 2)) - 0.18 * np.exp(-((u / 0.14) ** 2)))
    above = top - identity.upper_lip * pout * bow
    below = bottom + identity.lower_lip * pout * (1 - 0.15 * opening) * arch**0.65
    _around_the_lips(canvas, identity, (window, x, y), (u, arch, line, below))
    lips = _lip_colours(identity, y, (above, top, bottom, below), arch)
    canvas.paint(window, _band(y, above, below, canvas.scale), lips, inside=True)
    gap = bottom - top
    inner = _band(y, top, bottom, canvas.scale)
    canvas.paint(window, inner, _INSIDE, inside=True)
    tongue = _band(y, bottom - 0.34 * gap * np.clip(1 - (u / 0.75) ** 2, 0, 1) ** 0.5, bottom, canvas.scale)
    canvas.paint(window, tongue * inner * np.float32(min(opening * 4, 1)), _TONGUE, inside=True)
    reach = np.clip(1 - (u / 0.9) ** 4, 0, 1)
    teeth = _band(y, top - 0.1, top + identity.teeth * gap * reach, canvas.scale) * (gap > 0)
    canvas.paint(window, teeth * inner, _TEETH, inside=True)
    closed = np.float32(max(1 - 8 * opening, 0)) * np.exp(-(((y - line) / 0.085) ** 2)) * np.clip(arch * 4, 0, 1)
    canvas.paint(window, closed * 0.75, darker(identity.lips, 0.55), inside=True)


def _around_the_lips(
    canvas: Canvas,
    identity: Identity,
    place: tuple[tuple[slice, slice], Floats, Floats],
    curves: tuple[Floats, Floats, Floats, Floats],
) -> None:
    """The lower lip's shadow, and the corners' dimples."""
    (window, x, y), (_, arch, line, below) = place, curves
    shadow = np.exp(-(((y - below - 0.22) / 0.2) ** 2)) * arch
    canvas.paint(window, (0.3 * shadow).astype(np.float32), darker(identity.skin, 0.4), inside=True)
    column = int(np.argmin(arch[0] <= 0)) if (arch > 0).any() else 0
    corner, height = abs(float(x[0, column])), float(line[0, column])
    dimple = np.exp(-(((np.abs(x) - corner - 0.08) / 0.2) ** 2) - ((y - height) / 0.22) ** 2)
    canvas.paint(window, (0.45 * dimple).astype(np.float32), darker(identity.skin, 0.45), inside=True)


def _lip_colours(identity: Identity, y: Floats, curves: tuple[Floats, ...], arch: Floats) -> Floats:
    """Colours [h, w, 3]: the upper lip darker towards the line, the lower with a highlight."""
    above, top, bottom, below = curves
    upper = np.clip((y - above) / np.maximum(top - above, 1e-3), 0, 1)
    lower = np.clip((y - bottom) / np.maximum(below - bottom, 1e-3), 0, 1)
    level = np.where(y < (top + bottom) / 2, 0.95 - 0.17 * upper, 1.02 - 0.14 * lower)
    shine = np.exp(-(((lower - 0.4) / 0.22) ** 2)) * (y > bottom) * arch**2 * 0.26
    colour = np.asarray(identity.lips, np.float32) * level[..., None]
    return np.asarray(colour + shine[..., None] * (1 - colour), dtype=np.float32)


def draw_eyes(canvas: Canvas, identity: Identity, blink: float, gaze: tuple[float, float]) -> None:
    """Both eyes. blink : 0 open, 1 shut; gaze : -1..1 to the right and down."""
    for side in (-1, 1):
        _draw_eye(canvas, identity, side, blink, gaze)


def _draw_eye(canvas: Canvas, identity: Identity, side: int, blink: float, gaze: tuple[float, float]) -> None:
    (wide, high), centre, level = identity.eye_size, side * identity.eye_x, identity.eye_y
    window = canvas.window(centre - wide - 0.5, level - high - 0.9, centre + wide + 0.5, level + high + 0.5)
    x, y = canvas.grid(window)
    u = (x - centre) / np.float32(wide)
    arch = np.clip(1 - u * u, 0, 1)
    middle = level + 0.1 - identity.eye_tilt * side * u
    lower = middle + 0.55 * high * arch**0.8
    upper = middle - high * arch**0.7 + blink * (0.55 * high * arch**0.8 + high * arch**0.7)
    crease = middle - (high + 0.28) * arch**0.7 + 0.15
    fold = np.exp(-(((y - crease) / 0.09) ** 2)) * arch * 0.35
    canvas.paint(window, fold.astype(np.float32), darker(identity.skin, 0.5), inside=True)
    ball = _band(y, upper, lower, canvas.scale)
    shade = (0.97 - 0.2 * np.clip(1 - (y - upper) / 0.5, 0, 1))[..., None] * np.array([1, 0.99, 0.98], np.float32)
    canvas.paint(window, ball, shade.astype(np.float32), inside=True)
    ahead, down = centre + 0.32 * gaze[0], level - 0.06 + 0.16 * gaze[1]
    distance = np.hypot(x - ahead, y - down)
    for radius, colour in (
        (0.76, darker(identity.iris, 0.5)),
        (0.67, identity.iris),
        (0.5, lighter(identity.iris, 0.14)),
        (0.34, (0.04, 0.03, 0.04)),
    ):
        disc = np.clip((radius - distance) * canvas.scale + 0.5, 0, 1)
        canvas.paint(window, disc * ball, colour, inside=True)
    glint = np.clip((0.17 - np.hypot(x - ahead - 0.24 * identity.light, y - down + 0.28)) * canvas.scale + 0.5, 0, 1)
    canvas.paint(window, glint * ball, (1, 1, 1), inside=True)
    thickness = 0.1 + 0.1 * arch
    lash = _band(y, upper - thickness, upper + 0.05, canvas.scale) * np.clip(arch * 6, 0, 1)
    canvas.paint(window, lash, darker(identity.hair, 0.6), inside=True)
    rim = np.exp(-(((y - lower - 0.03) / 0.06) ** 2)) * arch * 0.4
    canvas.paint(window, rim.astype(np.float32), darker(identity.skin, 0.5), inside=True)
