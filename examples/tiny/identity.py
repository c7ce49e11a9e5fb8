"""Who a tiny face is: proportions in centimetres and colours, drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["HAIR_STYLES", "Identity"]

Colour = tuple[float, float, float]

HAIR_STYLES = ("short", "crop", "long", "bob", "curly", "bun", "bald")

# Levels 0..255, from light to dark.
_SKINS = ((252, 222, 198), (243, 200, 168), (228, 178, 138), (204, 146, 104), (170, 116, 82), (138, 92, 68))
_HAIRS = (
    (34, 28, 28),
    (58, 40, 30),
    (92, 60, 38),
    (134, 88, 50),
    (196, 154, 92),
    (222, 190, 134),
    (150, 66, 34),
    (168, 166, 164),
    (74, 84, 150),
    (176, 84, 120),
)
_HAIR_CHANCES = (0.2, 0.18, 0.15, 0.12, 0.09, 0.07, 0.07, 0.06, 0.03, 0.03)
_EYES = ((84, 56, 34), (110, 76, 40), (70, 110, 150), (92, 130, 80), (96, 104, 116))
_CLOTHES = ((52, 92, 132), (172, 70, 66), (70, 120, 96), (222, 206, 180), (92, 78, 128), (60, 62, 70), (214, 158, 72))
_BACKDROPS = ((190, 212, 224), (226, 210, 188), (196, 216, 190), (214, 198, 216), (150, 172, 186), (232, 222, 210))
_LIPS = (202, 92, 96)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A face. Lengths in cm, measured from a point of the nose's bridge, y downwards; colours RGB in 0..1."""

    skin: Colour
    lips: Colour
    hair: Colour
    iris: Colour
    clothes: Colour
    backdrop: tuple[Colour, Colour]
    """Colours at the top and at the bottom of the background."""
    head_width: float
    """Half the width at the cheeks."""
    jaw: float
    """Width at the mouth's height, as a share of the cheeks'."""
    chin_width: float
    """Half the chin's width."""
    chin_y: float
    eye_x: float
    eye_y: float
    eye_size: tuple[float, float]
    """Half width and half height of an open eye."""
    eye_tilt: float
    """How much higher the outer corner lies."""
    brow_y: float
    brow_thickness: float
    brow_arch: float
    nose_width: float
    """Half the width over the wings."""
    nose_y: float
    """The tip."""
    mouth_y: float
    """The line between closed lips."""
    mouth_width: float
    """Half the width at rest."""
    upper_lip: float
    lower_lip: float
    smile: float
    """How much higher the corners lie than the middle."""
    teeth: float
    """Share of the opening that the upper teeth fill."""
    hair_style: str
    hair_seed: int
    """Of the strands."""
    blush: float
    freckles: float
    """Opacity; 0 for none."""
    glasses: bool
    light: float
    """Where the light comes from: -1 left, 1 right."""

    @classmethod
    def from_seed(cls, seed: int) -> Identity:
        """The identity of a whole number >= 0; neighbouring seeds have nothing in common."""
        rng = np.random.default_rng((seed, 0xFACE))
        between = rng.uniform
        skin = _skin(rng)
        backdrop = _varied(_BACKDROPS[rng.integers(len(_BACKDROPS))], rng, 14)
        nose_y = between(0.8, 1.15)
        return cls(
            skin=skin,
            lips=_varied(_mix(tuple(255 * c for c in skin), _LIPS, between(0.4, 0.75)), rng, 5),
            hair=_varied(_HAIRS[rng.choice(len(_HAIRS), p=_HAIR_CHANCES)], rng, 8),
            iris=_varied(_EYES[rng.integers(len(_EYES))], rng, 10),
            clothes=_varied(_CLOTHES[rng.integers(len(_CLOTHES))], rng, 16),
            backdrop=(backdrop, _dimmed(backdrop, between(0.72, 0.9))),
            head_width=between(6.7, 7.5),
            jaw=between(0.76, 0.88),
            chin_width=between(1.5, 2.5),
            chin_y=between(8.1, 8.6),
            eye_x=between(3.0, 3.3),
            eye_y=between(-2.6, -2.3),
            eye_size=(between(1.3, 1.55), between(0.62, 0.82)),
            eye_tilt=between(-0.1, 0.22),
            brow_y=between(-4.75, -4.4),
            brow_thickness=between(0.32, 0.6),
            brow_arch=between(0.2, 0.5),
            nose_width=between(1.1, 1.5),
            nose_y=nose_y,
            mouth_y=nose_y + between(2.85, 3.05),
            mouth_width=between(2.4, 2.85),
            upper_lip=between(0.42, 0.62),
            lower_lip=between(0.54, 0.74),
            smile=between(0.05, 0.28),
            teeth=between(0.12, 0.24),
            hair_style=HAIR_STYLES[rng.integers(len(HAIR_STYLES))],
            hair_seed=int(rng.integers(1 << 30)),
            blush=between(0.08, 0.3),
            freckles=between(0.25, 0.5) if between() < 0.15 else 0.0,
            glasses=bool(between() < 0.2),
            light=between(-1, 1),
        )


def _skin(rng: np.random.Generator) -> Colour:
    """Of any tone, the lighter somewhat more often."""
    tone = float(rng.beta(1.1, 1.5)) * (len(_SKINS) - 1.001)
    return _varied(_mix(_SKINS[int(tone)], _SKINS[int(tone) + 1], tone % 1), rng, 5)


def _dimmed(colour: Colour, share: float) -> Colour:
    r, g, b = colour
    return r * share, g * share, b * share


def _mix(first: tuple[float, ...], second: tuple[float, ...], share: float) -> tuple[float, ...]:
    return tuple(a + (b - a) * share for a, b in zip(first, second, strict=True))


def _varied(colour: tuple[float, ...], rng: np.random.Generator, levels: float) -> Colour:
    """`colour` in 0..255 moved by up to `levels` a channel, to 0..1."""
    r, g, b = np.clip((np.array(colour) + rng.uniform(-levels, levels, 3)) / 255, 0.02, 1).tolist()
    return r, g, b
