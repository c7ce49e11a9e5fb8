"""A tiny face in a frame: an identity, its mouth as the sound has it, in a pose that knows nothing of the sound."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from examples.tiny.drawing import Canvas, Window, smoothstep
from examples.tiny.features import draw_eyes, draw_mouth, mouth_box
from examples.tiny.head import BUST, draw_glasses, draw_head
from examples.tiny.identity import Identity

__all__ = ["FACE_HEIGHT", "Identity", "Pose", "lip_centre", "mouth_region", "points", "render", "to_frame"]

FACE_HEIGHT = 16.2
"""From the hairline to the chin, cm."""

_FINER = 2  # everything is drawn and turned at twice the frame's size
_SHARE = 0.56  # of the frame's height that a face takes, in the drawing's scale
_JAW = (0.0, 7.0, 5.4, 3.4, 1.9, 0.45)  # centre x, y; reach sideways, up and down; drop at opening 1: cm


@dataclass(frozen=True, slots=True, kw_only=True)
class Pose:
    """Where the face is in the frame and what it does apart from talking."""

    x: float = 0.5
    """Of the point between eyes and nose, as a share of the frame's width."""
    y: float = 0.47
    """Of the same, as a share of the height."""
    size: float = _SHARE
    """Hairline to chin, as a share of the frame's height."""
    angle: float = 0.0
    """Degrees, clockwise."""
    blink: float = 0.0
    """0 open, 1 shut."""
    gaze: tuple[float, float] = (0.0, 0.0)
    """-1..1 to the right and down."""


@dataclass(frozen=True, slots=True, eq=False)
class _Drawn:
    """What is drawn once for an identity and a size of frame."""

    bust: NDArray[np.uint8]
    """[h, w, 4], multiplied by alpha, without eyes, glasses and mouth."""
    scale: float
    """Pixels per cm."""
    backdrop: NDArray[np.uint8]
    """[H, W, 3]."""
    eyes: Window
    mouth: Window
    glasses: NDArray[np.float32] | None
    """Their picture in the eyes' window, [4, h, w], multiplied by alpha, 0..1."""
    jaw: tuple[Window, NDArray[np.float32]]
    """Where the jaw is moved, and by how many pixels at opening 1, [h, w]."""


def to_frame(pose: Pose, size: tuple[int, int]) -> NDArray[np.float64]:
    """cm of the face to pixels of a frame of `size` (height, width): float64 [2, 3]; pixels lie at whole numbers."""
    height, width = size
    scale = pose.size * height / FACE_HEIGHT
    angle = np.deg2rad(pose.angle)
    cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[cosine, -sine, pose.x * width - 0.5], [sine, cosine, pose.y * height - 0.5]])


def lip_centre(identity: Identity, pose: Pose, size: tuple[int, int]) -> NDArray[np.float64]:
    """The middle of the line between closed lips, (x, y) in pixels of a frame of `size` (height, width)."""
    return np.asarray(to_frame(pose, size) @ (0.0, identity.mouth_y, 1.0))


def mouth_region(identity: Identity, pose: Pose, size: tuple[int, int]) -> NDArray[np.float64]:
    """x0, y0, x1, y1 in frame pixels: upright, round lips of any opening and width."""
    x0, y0, x1, y1 = mouth_box(identity)
    corners = np.array([[x0, y0, 1], [x1, y0, 1], [x0, y1, 1], [x1, y1, 1]]) @ to_frame(pose, size).T
    return np.concatenate([corners.min(0), corners.max(0)])


def points(identity: Identity, pose: Pose, size: tuple[int, int]) -> NDArray[np.float64]:
    """Left brow, right brow, nose, [3, 2] in frame pixels: where MediaPipe's face mesh finds them, on average."""
    brow = identity.brow_y - 0.16
    found = np.array([[-3.77, brow, 1], [3.97, brow, 1], [0.04, identity.nose_y - 0.25, 1]])
    return np.asarray(found @ to_frame(pose, size).T)


def render(
    identity: Identity, opening: float, width: float, pose: Pose | None = None, size: tuple[int, int] = (256, 256)
) -> NDArray[np.uint8]:
    """The frame uint8 [H, W, 3] RGB. opening, width : of the mouth, 0..1; size : height and width in pixels."""
    pose = pose or Pose()
    drawn = _drawn(identity, size)
    bust = drawn.bust.copy()
    window, drop = drawn.jaw
    bust[window] = _stretched(bust[window], drop * np.float32(opening))
    eyes = _part(bust, drawn.eyes, drawn.scale)
    draw_eyes(eyes, identity, pose.blink, pose.gaze)
    if drawn.glasses is not None:
        eyes.planes *= 1 - drawn.glasses[3]
        eyes.planes += drawn.glasses
    mouth = _part(bust, drawn.mouth, drawn.scale)
    draw_mouth(mouth, identity, opening, width)
    for place, part in ((drawn.eyes, eyes), (drawn.mouth, mouth)):
        bust[place] = _levels(part)
    return _placed(bust, drawn, pose, size)


def _part(bust: NDArray[np.uint8], window: Window, scale: float) -> Canvas:
    """A canvas of its own for a window of the bust."""
    left, top = BUST[0] + window[1].start / scale, BUST[1] + window[0].start / scale
    planes = bust[window].transpose(2, 0, 1).astype(np.float32, order="C")
    planes *= np.float32(1 / 255)
    return Canvas((left, top, left + planes.shape[2] / scale, top + planes.shape[1] / scale), scale, planes)


def _levels(canvas: Canvas) -> NDArray[np.uint8]:
    """The canvas as uint8 [h, w, 4]."""
    levels = np.clip(canvas.planes, 0, 1) * np.float32(255)
    return np.asarray(np.rint(levels).transpose(1, 2, 0), dtype=np.uint8)


def _stretched(picture: NDArray[np.uint8], drop: NDArray[np.float32]) -> NDArray[np.uint8]:
    """`picture` [h, w, 4] moved down by `drop` pixels [h, w]."""
    rows, columns = (np.asarray(axis, dtype=np.float32) for axis in np.indices(drop.shape))
    above = np.asarray(rows - drop, dtype=np.float32)
    moved: Any = cv2.remap(picture, columns, above, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, dtype=np.uint8)


def _placed(bust: NDArray[np.uint8], drawn: _Drawn, pose: Pose, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The bust in its pose before the backdrop."""
    height, width = size
    step = 1 / drawn.scale
    to_cm = np.array([[step, 0, BUST[0] + 0.5 * step], [0, step, BUST[1] + 0.5 * step], [0, 0, 1]])
    affine = to_frame(pose, size) @ to_cm
    affine *= _FINER
    affine[:, 2] += (_FINER - 1) / 2
    turned = cv2.warpAffine(bust, affine, (_FINER * width, _FINER * height), flags=cv2.INTER_LINEAR)
    small = cv2.resize(turned, (width, height), interpolation=cv2.INTER_AREA)
    through = cv2.cvtColor(255 - small[..., 3], cv2.COLOR_GRAY2RGB)
    behind = cv2.multiply(drawn.backdrop, through, scale=1 / 255)
    return np.asarray(cv2.add(behind, np.ascontiguousarray(small[..., :3])), dtype=np.uint8)


@lru_cache(maxsize=4)
def _drawn(identity: Identity, size: tuple[int, int]) -> _Drawn:
    scale = _FINER * _SHARE * size[0] / FACE_HEIGHT
    canvas = draw_head(identity, scale)
    x0, y0, x1, y1 = mouth_box(identity)
    reach = identity.eye_x + identity.eye_size[0] + 0.6
    if identity.glasses:
        reach = identity.head_width + 0.3
    eyes = canvas.window(-reach, identity.eye_y - 2.1, reach, identity.eye_y + 2.3)
    glasses = None
    if identity.glasses:
        pane = Canvas(BUST, scale)
        draw_glasses(pane, identity)
        glasses = pane.planes[:, *eyes]
    return _Drawn(
        bust=np.ascontiguousarray(_levels(canvas)),
        scale=scale,
        backdrop=_backdrop(identity, size),
        eyes=eyes,
        mouth=canvas.window(x0 - 0.4, y0 - 0.4, x1 + 0.4, y1 + 1.0),
        glasses=glasses,
        jaw=_jaw(canvas),
    )


def _jaw(canvas: Canvas) -> tuple[Window, NDArray[np.float32]]:
    """The window in which the jaw moves, and by how many pixels at opening 1."""
    middle, level, aside, up, down, drop = _JAW
    window = canvas.window(middle - aside, level - up, middle + aside, level + down)
    x, y = canvas.grid(window)
    away = ((x - middle) / aside) ** 2 + ((y - level) / np.where(y < level, up, down)) ** 2
    return window, (drop * canvas.scale * smoothstep(1, 0, away)).astype(np.float32)


def _backdrop(identity: Identity, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A wall lit from one side, and the soft shapes of what hangs there."""
    height, width = size
    down, across = np.mgrid[0:height, 0:width].astype(np.float32) / np.array([height, width], np.float32)[:, None, None]
    top, bottom = (np.asarray(colour, np.float32) for colour in identity.backdrop)
    share = (down + 0.25 * identity.light * (0.5 - across))[..., None]
    wall = top + (bottom - top) * np.clip(share, 0, 1)
    rng = np.random.default_rng((identity.hair_seed, 4))
    for _ in range(4):
        x, y, radius = rng.uniform(0, 1), rng.uniform(0, 0.8), rng.uniform(0.1, 0.3)
        disc = smoothstep(radius, radius * 0.8, np.hypot(across - x, down - y))[..., None]
        wall = wall + disc * rng.uniform(-0.06, 0.06)
    return np.asarray(np.rint(np.clip(wall, 0, 1) * 255), dtype=np.uint8)
