"""The part of a tiny face that never moves by itself: bust, head, hair, brows and nose, drawn once an identity."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from examples.tiny.drawing import Canvas, Colour, ellipse_points, smooth_curve, smoothstep
from examples.tiny.identity import Identity

__all__ = ["BUST", "darker", "draw_glasses", "draw_head", "lighter"]

BUST = (-19.0, -15.0, 19.0, 23.0)
"""What is drawn: x0, y0, x1, y1 in cm."""


def darker(colour: Colour, share: float) -> Colour:
    """`colour` towards black; red fades last, as in skin."""
    r, g, b = colour
    return r * (1 - 0.8 * share), g * (1 - share), b * (1 - share)


def lighter(colour: Colour, share: float) -> Colour:
    """`colour` towards white."""
    r, g, b = (c + (1 - c) * share for c in colour)
    return r, g, b


def draw_head(identity: Identity, scale: float) -> Canvas:
    """The bust without eyes, glasses and mouth; scale : pixels per cm."""
    canvas = Canvas(BUST, scale)
    outline = _outline(identity)
    _back_hair(canvas, identity)
    _body(canvas, identity, outline)
    _ears(canvas, identity)
    _skin(canvas, identity, outline)
    _nose(canvas, identity)
    _brows(canvas, identity)
    _hair(canvas, identity)
    return canvas


def _outline(identity: Identity) -> NDArray[np.float64]:
    """Skull, cheeks, jaw and chin: points [n, 2]."""
    wide, chin = identity.head_width, identity.chin_y
    right = [
        (0.0, -9.6),
        (wide * 0.52, -8.9),
        (wide * 0.88, -6.2),
        (wide, -2.2),
        (wide * 0.97, 0.8),
        (wide * (identity.jaw + 0.05), 3.6),
        (identity.chin_width + wide * 0.24, chin - 1.9),
        (identity.chin_width * 0.75, chin - 0.25),
    ]
    left = [(-x, y) for x, y in right[:0:-1]]
    return smooth_curve([*right, (0.0, chin), *left], closed=True)


def _body(canvas: Canvas, identity: Identity, outline: NDArray[np.float64]) -> None:
    """Neck with the chin's shadow, shoulders, collar."""
    skin = darker(identity.skin, 0.12)
    half = identity.head_width * 0.52
    bottom = BUST[3] + 1
    shoulders = [(-half - 1, 11.2), (-10.5, 13.2), (-16.5, 16.5), (-18, bottom), (18, bottom), (16.5, 16.5)]
    clothes = smooth_curve([*shoulders, (10.5, 13.2), (half + 1, 11.2)], closed=True)
    canvas.polygon(clothes, identity.clothes)
    canvas.ellipse(0, 24, 13, 9, lighter(identity.clothes, 0.18), soft=2.5, opacity=0.6)
    neck = smooth_curve(
        [(-half, 3), (-half, 9), (-half - 0.9, 11.4), (0, 14.2), (half + 0.9, 11.4), (half, 9), (half, 3)], closed=True
    )
    canvas.polygon(neck, skin)
    collar = smooth_curve([(-half - 1.0, 11.2), (0, 14.4), (half + 1.0, 11.2)], closed=False)
    canvas.stroke(collar, 0.45, darker(identity.clothes, 0.3))
    window, shadow = canvas.coverage(outline + np.array([0, 0.9]), 0.5)
    x, _ = canvas.grid(window)
    on_neck = smoothstep(half + 0.1, half - 0.2, np.abs(x)).astype(np.float32)
    canvas.paint(window, shadow * 0.45 * on_neck, darker(skin, 0.35), inside=True)


def _ears(canvas: Canvas, identity: Identity) -> None:
    for side in (-1, 1):
        x = side * (identity.head_width + 0.25)
        canvas.polygon(ellipse_points(x, -1.2, 0.95, 1.75, side * 0.18), darker(identity.skin, 0.08))
        canvas.ellipse(x, -1.1, 0.4, 1.0, darker(identity.skin, 0.3), soft=0.2, opacity=0.7)


def _skin(canvas: Canvas, identity: Identity, outline: NDArray[np.float64]) -> None:
    """The face as a rounded body in soft light, cheeks, sockets and chin."""
    window, covered = canvas.coverage(outline)
    x, y = canvas.grid(window)
    across = x / (identity.head_width + 0.4)
    down = (y + 0.9) / 9.6
    away = np.minimum(across**2 + down**2 * 0.85, 1.0)
    facing = np.sqrt(1 - 0.85 * away)
    shade = 0.7 + 0.36 * facing + 0.06 * identity.light * across - 0.05 * down
    base = np.asarray(identity.skin, np.float32)
    warm = np.array([0.75, 1.0, 1.08], np.float32)  # shadows in skin are red
    field = np.clip(base * (1 + (shade[..., None] - 1) * warm), 0, 1).astype(np.float32)
    canvas.paint(window, covered, field)
    skin, red = identity.skin, (0.86, 0.3, 0.28)
    for side in (-1, 1):
        canvas.ellipse(side * 4.3, 1.6, 1.5, 1.1, red, soft=0.8, opacity=identity.blush)
        canvas.ellipse(side * identity.eye_x, identity.eye_y - 0.3, 1.9, 1.2, darker(skin, 0.3), soft=0.6, opacity=0.4)
        canvas.ellipse(side * 4.0, 0.4, 1.5, 0.6, lighter(skin, 0.5), soft=0.7, opacity=0.3)
    canvas.ellipse(0, -6.6, 3.2, 1.3, lighter(skin, 0.5), soft=1.2, opacity=0.35)
    canvas.ellipse(0, identity.chin_y - 0.9, 1.1, 0.5, lighter(skin, 0.4), soft=0.5, opacity=0.3)
    if identity.freckles:
        _freckles(canvas, identity)


def _freckles(canvas: Canvas, identity: Identity) -> None:
    rng = np.random.default_rng((identity.hair_seed, 1))
    for _ in range(44):
        x, y = rng.normal(0, 2.6), rng.normal(0.7, 0.75)
        if abs(x) < 5.4 and y < 2.2:
            canvas.ellipse(x, y, 0.11, 0.1, darker(identity.skin, 0.45), soft=0.04, opacity=identity.freckles)


def _nose(canvas: Canvas, identity: Identity) -> None:
    skin, tip, half = identity.skin, identity.nose_y, identity.nose_width
    shadow, dark = darker(skin, 0.3), darker(skin, 0.62)
    far = 1 if identity.light <= 0 else -1
    for side in (-1, 1):
        weight = 0.5 if side == far else 0.25
        bridge = smooth_curve(
            [(side * 0.75, -3.2), (side * 0.55, -1.6), (side * 0.8, tip - 0.6), (side * half, tip + 0.2)], closed=False
        )
        canvas.stroke(bridge, 0.5, shadow, soft=0.28, opacity=weight)
    canvas.ellipse(0, tip + 0.75, half * 1.1, 0.36, shadow, soft=0.3, opacity=0.55)
    canvas.ellipse(0, tip + 0.05, half * 0.72, 0.66, lighter(skin, 0.18), soft=0.25, opacity=0.75)
    for side in (-1, 1):
        canvas.ellipse(side * half * 0.76, tip + 0.25, half * 0.32, 0.44, lighter(skin, 0.06), soft=0.14, opacity=0.8)
        wing = smooth_curve(
            [(side * half * 0.98, tip - 0.25), (side * half * 1.1, tip + 0.25), (side * half * 0.85, tip + 0.62)],
            closed=False,
        )
        canvas.stroke(wing, np.linspace(0.05, 0.17, len(wing)), dark, soft=0.06, opacity=0.6)
        canvas.ellipse(side * half * 0.42, tip + 0.6, half * 0.24, 0.15, dark, soft=0.07, opacity=0.85)
    canvas.ellipse(0, -1.2, 0.26, 1.8, lighter(skin, 0.6), soft=0.28, opacity=0.5)
    canvas.ellipse(-0.15 * far, tip - 0.15, 0.3, 0.24, lighter(skin, 0.85), soft=0.15, opacity=0.6)


def _brows(canvas: Canvas, identity: Identity) -> None:
    colour = darker(identity.hair, 0.3)
    if sum(identity.hair) > 1.5:
        colour = darker(identity.hair, 0.5)
    y, arch = identity.brow_y, identity.brow_arch
    for side in (-1, 1):
        curve = smooth_curve(
            [(side * 1.3, y + 0.12), (side * 2.5, y - 0.12), (side * 4.2, y - arch), (side * 5.8, y + 0.35)],
            closed=False,
        )
        share = np.linspace(0, 1, len(curve))
        canvas.stroke(curve, identity.brow_thickness * (1 - 0.7 * share**2.2), colour, soft=0.07, opacity=0.92)


def _back_hair(canvas: Canvas, identity: Identity) -> None:
    """What falls behind the neck, what stands round the head."""
    wide, style = identity.head_width, identity.hair_style
    shade = darker(identity.hair, 0.3)
    if style == "long":
        right = [(wide * 0.8, -9.6), (wide * 1.2, -4), (wide * 1.28, 3), (wide * 1.35, 10), (wide * 0.7, 13)]
    elif style == "bob":
        right = [(wide * 0.8, -9.6), (wide * 1.2, -4), (wide * 1.32, 2), (wide * 1.25, 6.2), (wide * 0.6, 7)]
    elif style == "bun":
        canvas.polygon(ellipse_points(0, -12.1, 2.7, 2.3), identity.hair)
        canvas.ellipse(0.6 * identity.light, -12.6, 1.3, 0.8, lighter(identity.hair, 0.3), soft=0.6, opacity=0.5)
        return
    elif style == "curly":
        rng = np.random.default_rng((identity.hair_seed, 2))
        for angle in np.linspace(-2.15, 2.15, 23):
            x, y = (wide * 1.08) * np.sin(angle), -2.6 - 8.0 * np.cos(angle)
            size = rng.uniform(1.5, 2.1)
            tint = darker(identity.hair, rng.uniform(0, 0.3))
            canvas.polygon(ellipse_points(x, y, size, size), tint)
        return
    else:
        return
    left = [(-x, y) for x, y in right[::-1]]
    canvas.polygon(smooth_curve([(0, -11), *right, *left], closed=True), shade)


def _hair(canvas: Canvas, identity: Identity) -> None:
    """The cap of hair above the hairline, with strands from the crown."""
    style, wide = identity.hair_style, identity.head_width
    if style == "bald":
        canvas.ellipse(-1.5 + 3 * (identity.light > 0), -8.2, 1.6, 0.6, (1, 1, 1), soft=0.5, opacity=0.3)
        return
    lift, side_end = {"short": (1.4, -1.6), "crop": (0.6, -2.2), "curly": (1.6, -2.4)}.get(style, (1.1, 0.2))
    part = 0.55 * (1 if identity.hair_seed % 2 else -1)
    outer = [(wide + 0.25, side_end), (wide * 1.07 + 0.1, -4.4), (wide * 0.9, -8.2), (wide * 0.45, -10.1 - lift * 0.5)]
    top = [(0.0, -10.0 - lift)]
    inner = [(-wide * 0.93, side_end + 0.4), (-wide * 0.9, -4.6), (-wide * 0.62, -6.9 - 0.5 * part)]
    crown = [(wide * 0.25 * part, -7.9), (wide * 0.62, -6.9 + 0.5 * part), (wide * 0.9, -4.6)]
    mirrored = [(-x, y) for x, y in outer[::-1]]
    points = [*outer, *top, *mirrored, *inner, *crown, (wide * 0.93, side_end + 0.4)]
    window, covered = canvas.coverage(smooth_curve(points, closed=True))
    canvas.paint(window, covered, _strands(canvas, identity, window, part))


def _strands(canvas: Canvas, identity: Identity, window: tuple[slice, slice], part: float) -> NDArray[np.float32]:
    """Colours [h, w, 3] of hair combed from the crown, with a band of light."""
    x, y = canvas.grid(window)
    angle = np.arctan2(x - part * 2, -(y + 4.5))
    reach = np.hypot(x - part * 2, y + 4.5)
    rng = np.random.default_rng((identity.hair_seed, 3))
    waves = sum(
        rng.uniform(0.3, 1) * np.sin(rng.integers(9, 70) * angle + 0.5 * reach * rng.normal() + rng.uniform(0, 6.3))
        for _ in range(6)
    )
    band = np.exp(-(((reach - 5.2) / 0.9) ** 2)) * (0.6 + 0.4 * np.cos(angle - identity.light))
    level = 1 + 0.06 * waves + 0.05 * (-y - 8) / 3
    colour = np.asarray(identity.hair, np.float32) * level[..., None] + 0.16 * band[..., None]
    colour *= (0.75 + 0.25 * smoothstep(-1, -6, y))[..., None]
    return np.asarray(np.clip(colour, 0, 1), dtype=np.float32)


def draw_glasses(canvas: Canvas, identity: Identity) -> None:
    """Thin round frames over the eyes."""
    colour = darker(identity.hair, 0.4)
    for side in (-1, 1):
        ring = ellipse_points(side * identity.eye_x, identity.eye_y + 0.15, 2.3, 1.75)
        canvas.stroke(np.concatenate([ring, ring[:1]]), 0.2, colour, inside=False)
        temple = np.array([[side * (identity.eye_x + 2.3), identity.eye_y], [side * identity.head_width, -2.6]])
        canvas.stroke(temple, 0.2, colour, inside=False)
    bridge = smooth_curve(
        [(2.3 - identity.eye_x, identity.eye_y), (0, identity.eye_y - 0.35), (identity.eye_x - 2.3, identity.eye_y)],
        closed=False,
    )
    canvas.stroke(bridge, 0.2, colour, inside=False)
