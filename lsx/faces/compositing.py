"""Faces back into frames: the square resized to the crop, warped home, blended under a soft mask."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from lsx.core.tensors import Frame
from lsx.errors import UsageError
from lsx.faces.alignment import Affine, crop_size, region_of, shifted
from lsx.faces.soft_mask import direct_mask, edge_width, profile_table

__all__ = ["Compositor", "PasteMask", "read_paste_mask", "resize_bicubic"]

Image = NDArray[np.float32]

PasteMask = Literal["soft", "hard"] | Image
"""How a face is blended in: fading out at its edges, not at all, or, besides, by shares 0..1 of the aligned face
[h, w], of any size."""

# The original warps in [-1, 1] and fills the outside with 127 there; in 0..255 that is this. It clamps to white.
_FILL = (127.0 / 2 + 0.5) * 255

_WHOLE = 254.5
"""Of a mask warped in 0..255: pixels that lie wholly under the crop."""

_DIRECT_PIXELS = 120_000
"""Regions under this size are masked directly: there that is the faster way."""


@lru_cache(maxsize=16)
def _bicubic_taps(source: int, target: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Source indices and weights of an antialiased bicubic (a = -0.5) resize: [taps, target] each."""
    scale = source / target
    stretch = max(scale, 1.0)
    centres = (np.arange(target) + 0.5) * scale
    low = np.maximum((centres - 2 * stretch + 0.5).astype(np.intp), 0)
    high = np.minimum((centres + 2 * stretch + 0.5).astype(np.intp), source)
    indices = low[None] + np.arange((high - low).max())[:, None]
    x = np.abs((indices + 0.5 - centres) / stretch)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0.0)) * (indices < high)
    weights /= weights.sum(0)
    return np.minimum(indices, source - 1), weights.astype(np.float32)


def _resize_rows(image: Image, target: int) -> Image:
    """Resize the first axis of `image` [rows, columns] to `target`."""
    indices, weights = _bicubic_taps(image.shape[0], target)
    total = np.empty((target, image.shape[1]), np.float32)
    tap = np.empty_like(total)
    for number, (index, weight) in enumerate(zip(indices, weights, strict=True)):
        out = tap if number else total
        np.take(image, index, axis=0, out=out, mode="clip")
        out *= weight[:, None]
        if number:
            total += tap
    return total


def resize_bicubic(image: Image, size: tuple[int, int]) -> Image:
    """Antialiased bicubic resize (a = -0.5) of float32 [h, w, channels] to `size` (w, h)."""
    width, height = size
    channels = image.shape[2]
    rows = _resize_rows(image.reshape(image.shape[0], -1), height).reshape(height, -1, channels)
    columns: Any = cv2.transpose(rows).reshape(image.shape[1], -1)
    resized = _resize_rows(columns, width).reshape(width, height, channels)
    return np.asarray(cv2.transpose(resized), dtype=np.float32)


@lru_cache(maxsize=16)
def _ones(resolution: int, size: tuple[int, int]) -> Image:
    """What white of [resolution, resolution] is after the resize: 255 but for rounding, [h, w]."""
    return resize_bicubic(np.full((resolution, resolution, 3), 255, np.float32), size)[..., 0].copy()


def _masked(planes: Any, window: tuple[slice, slice], width: int | None) -> Image:
    """The direct soft mask of `window`, whose three colour planes are multiplied by the hard mask. [r, g, b, ones]."""
    hard, soft = direct_mask(planes[3][window] * np.float32(1 / 255), width)
    for plane in planes[:3]:
        plane[window] *= hard
    return soft


def read_paste_mask(name: str) -> PasteMask:
    """The mask of `soft`, `hard`, or the path of a picture whose light is the face's share.

    Raises UsageError for what is no picture.
    """
    fixed: dict[str, PasteMask] = {"soft": "soft", "hard": "hard"}
    if name in fixed:
        return fixed[name]
    there = Path(name).is_file()
    picture: Any = cv2.imread(name, cv2.IMREAD_GRAYSCALE) if there else None
    if picture is None:
        raise UsageError(
            f"mask is {name!r}, {'no picture' if there else 'no such file'}; give soft, hard, or a picture of the "
            "aligned face, white where it is pasted"
        )
    return np.asarray(picture, np.float32) / np.float32(255)


class Compositor:
    """Pastes faces into frames. Holds its buffers from call to call: one a thread."""

    def __init__(self, mask: PasteMask = "soft") -> None:
        self._mask = mask
        self._buffers: dict[str, NDArray[Any]] = {}

    def _buffer(self, name: str, shape: tuple[int, ...], dtype: Any = np.float32) -> NDArray[Any]:
        """Scratch of `shape`, its contents undefined; grows to the largest ever asked for."""
        count = int(np.prod(shape))
        held = self._buffers.get(name)
        if held is None or held.size < count:
            held = self._buffers[name] = np.empty(count, dtype)
        return held[:count].reshape(shape)

    def paste(self, frame: Frame, face: NDArray[Any], affine: Affine, share: float = 1.0) -> None:
        """Put `face` [resolution, resolution, 3] back into `frame` uint8 [H, W, 3], in place.

        face : levels, uint8 or float; as in the original, floats are clipped to 0..255 only after resize and warp.
        affine : the one the face was cropped with; share : of the face in the mixture with the frame, 0..1.

        Only the pixels under the inverse-warped crop are touched.
        """
        size = crop_size(face.shape[0])
        whole = region_of(affine, size, None)
        x0, y0, x1, y1 = region_of(affine, size, (frame.shape[0], frame.shape[1]))
        if x1 <= x0 or y1 <= y0:
            return
        local = shifted(affine, x0, y0)
        # RGB and a block of ones in one four-channel image: OpenCV warps four channels faster than three.
        crop: Any = cv2.cvtColor(resize_bicubic(face.astype(np.float32), size), cv2.COLOR_RGB2RGBA)
        crop[..., 3] = _ones(face.shape[0], size)
        region = frame[y0:y1, x0:x1]
        height, width = region.shape[:2]
        warped = self._warp("face", crop, local, (width, height), (_FILL, _FILL, _FILL, 0.0))
        planes = cv2.split(warped, [self._buffer(f"plane{i}", (height, width)) for i in range(4)])
        for plane in planes[:3]:
            np.clip(plane, 0, 255, out=plane)
        cut = tuple(inner != outer for inner, outer in zip((x0, y0, x1, y1), whole, strict=True))
        soft = None
        if isinstance(self._mask, str) and self._mask == "hard":
            soft = (planes[3] >= _WHOLE).astype(np.float32)
        else:
            soft = self._profile_mask(local, size, planes, cut)
        if soft is None:
            soft = _masked(planes, (slice(None), slice(None)), None)
        if not isinstance(self._mask, str):
            shares: Any = cv2.resize(self._mask, size, interpolation=cv2.INTER_LINEAR)
            soft = soft * self._warp("shares", shares, local, (width, height), (0.0,))
        if share != 1:
            soft = soft * np.float32(share)
        self._blend(region, planes[:3], soft)

    def _warp(self, name: str, image: Image, affine: Affine, size: tuple[int, int], fill: tuple[float, ...]) -> Image:
        channels = image.shape[2:]
        warped: Any = cv2.warpAffine(
            image,
            affine,
            size,
            dst=self._buffer(name, (size[1], size[0], *channels)),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=fill,
            hint=cv2.ALGO_HINT_ACCURATE,
        )
        return np.asarray(warped)

    def _profile_mask(self, affine: Affine, crop: tuple[int, int], planes: Any, cut: tuple[bool, ...]) -> Image | None:
        """The soft mask by profiles; along the sides where the frame cuts the crop, (left, top, right, bottom), direct.

        None where profiles do not hold or do not pay.
        """
        height, width = planes[3].shape
        if height * width < _DIRECT_PIXELS or np.hypot(affine[0, 0], affine[0, 1]) > 1:
            return None
        edge = edge_width(affine, crop, (width, height))
        # The frame's border is felt by the erosion for w pixels and by the blur for w more; as much again is context.
        reach = 0 if edge is None else 2 * edge + 2
        if edge is None or 2 * reach * sum(cut) > min(height, width):
            return None
        table = profile_table(affine, crop, edge)
        if table is None:
            return None
        soft = self._warp("soft", *table, (width, height), (0.0,))
        rows = slice(None)
        near, far = (slice(2 * reach), slice(reach)), (slice(-2 * reach, None), slice(-reach, None))
        for is_cut, (context, inner), axis in zip(cut, (near, near, far, far), (1, 0, 1, 0), strict=True):
            if is_cut:
                window = (context, rows) if axis == 0 else (rows, context)
                inside = (inner, rows) if axis == 0 else (rows, inner)
                soft[inside] = _masked(planes, window, edge)[inside]
        return soft

    def _blend(self, region: Frame, planes: Any, soft: Image) -> None:
        """region + soft * (planes - region), truncated, in place."""
        height, width = soft.shape
        merged = self._buffer("merged", (height, width, 3), np.uint8)
        np.copyto(merged, region)  # OpenCV takes six times as long to split what does not lie in one piece
        split = cv2.split(merged, [self._buffer(f"byte{i}", (height, width), np.uint8) for i in range(3)])
        for plane, byte in zip(planes, split, strict=True):
            np.subtract(plane, byte, out=plane)
            np.multiply(plane, soft, out=plane)
            np.add(plane, byte, out=plane)
            np.copyto(byte, plane, casting="unsafe")
        np.copyto(region, cv2.merge(split, merged))
