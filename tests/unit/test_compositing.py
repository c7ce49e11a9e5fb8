"""Resize, soft mask and pasting against PyTorch, NumPy, and the direct way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lsx.errors import UsageError
from lsx.faces import compositing
from lsx.faces.alignment import Aligner, Face, crop_face, crop_size, region_of
from lsx.faces.compositing import Compositor, PasteMask, read_paste_mask, resize_bicubic
from tests.seeded_inputs import picture


@pytest.mark.parametrize(("source", "size"), [((256, 256), (210, 280)), ((512, 512), (420, 560)), ((64, 48), (20, 90))])
def test_bicubic_equals_pytorch(source: tuple[int, int], size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).random((*source, 3), dtype=np.float32)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(image).permute(2, 0, 1)[None], size=size[::-1], mode="bicubic", antialias=True
    )[0].permute(1, 2, 0)
    assert np.abs(resize_bicubic(image, size) - theirs.numpy()).max() < 1e-4


def test_the_crop_is_exact_bilinear() -> None:
    frame = picture(360, 640, 0.3)
    affine = Aligner(256).affine(np.array([[260.0, 150], [380, 158], [322, 195]]))
    width, height = crop_size(256)
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    inverse = cv2.invertAffineTransform(affine)
    at = np.stack([x, y, np.ones_like(x)], -1) @ inverse.T
    low = np.floor(at).astype(int)
    part = (at - low)[..., None]

    def tap(dy: int, dx: int) -> NDArray[np.float64]:
        ys, xs = low[..., 1] + dy, low[..., 0] + dx
        inside = (ys >= 0) & (ys < 360) & (xs >= 0) & (xs < 640)
        taken = frame[np.clip(ys, 0, 359), np.clip(xs, 0, 639)].astype(np.float64)
        return np.where(inside[..., None], taken, 127.0)

    fx, fy = part[..., 0, :], part[..., 1, :]
    wanted = (tap(0, 0) * (1 - fx) + tap(0, 1) * fx) * (1 - fy) + (tap(1, 0) * (1 - fx) + tap(1, 1) * fx) * fy
    square = cv2.resize(wanted.astype(np.uint8), (256, 256), interpolation=cv2.INTER_LANCZOS4)
    apart = np.abs(crop_face(frame, affine, 256).astype(int) - square)
    assert apart.max() <= 1
    assert (apart > 0).mean() < 2e-3


@pytest.mark.parametrize(
    ("centre", "angle"),
    [((960, 540), 0.0), ((960, 540), 0.1), ((960, 760), 0.03), ((300, 500), -0.08), ((700, 250), 0.2)],
)
def test_the_profile_mask_equals_the_direct_one(
    monkeypatch: pytest.MonkeyPatch, centre: tuple[int, int], angle: float
) -> None:
    """Inside the frame, and cut by its bottom, left and top edges."""
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = np.array([[-110.0, -100], [110, -95], [5, 100]]) @ turn.T + centre
    affine = Aligner(256).affine(points)
    frame = picture(1080, 1920, 0.3)
    face = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    fast, slow = frame.copy(), frame.copy()
    Compositor().paste(fast, face, affine)
    monkeypatch.setattr(compositing, "_DIRECT_PIXELS", 10**9)
    Compositor().paste(slow, face, affine)
    assert not np.array_equal(slow, frame)
    apart = np.abs(fast.astype(int) - slow)
    assert apart.max() <= 1
    assert apart.mean() < 0.01


def test_only_the_region_is_touched() -> None:
    frame = picture(360, 640, 0.3)
    affine = Aligner(256).affine(np.array([[260.0, 150], [330, 152], [296, 190]]))
    x0, y0, x1, y1 = region_of(affine, crop_size(256), (360, 640))
    result = frame.copy()
    Compositor().paste(result, np.full((256, 256, 3), 250, np.uint8), affine)
    outside = np.ones((360, 640), bool)
    outside[y0:y1, x0:x1] = False
    assert np.array_equal(result[outside], frame[outside])
    assert not np.array_equal(result, frame)


def test_a_face_outside_the_frame_changes_nothing() -> None:
    frame = picture(120, 160, 0.0)
    affine = Aligner(256).affine(np.array([[2000.0, 2000], [2100, 2000], [2050, 2080]]))
    assert (crop_face(frame, affine, 256) == 127).all()
    result = frame.copy()
    Compositor().paste(result, np.zeros((256, 256, 3), np.uint8), affine)
    assert np.array_equal(result, frame)


def test_points_must_be_three() -> None:
    with pytest.raises(Exception, match="three finite points"):
        Face(points=np.zeros((2, 2)))


@pytest.mark.parametrize("scale", [1.0, 2.6])
def test_masks_of_other_kinds(tmp_path: Path, scale: float) -> None:
    """Hard: the warped face itself under the whole crop. A picture: the soft mask, and its light besides."""
    frame, made = picture(700, 900, 0.2), np.full((256, 256, 3), 250, np.uint8)
    points = np.array([[-60.0, -50], [60, -50], [0, 50]]) * scale + (450, 330)
    affine = Aligner(256).affine(points)

    def pasted(mask: PasteMask) -> NDArray[np.float64]:
        result = frame.copy()
        Compositor(mask).paste(result, made, affine)
        return result.astype(float)

    soft, hard = pasted("soft"), pasted("hard")
    corners = np.array([[0, 0, 1], [209, 0, 1], [209, 279, 1], [0, 279, 1]]) @ cv2.invertAffineTransform(affine).T
    within = np.asarray(cv2.fillConvexPoly(np.zeros(frame.shape[:2], np.uint8), corners.round().astype(np.int32), 1))
    core: Any = cv2.erode(within, np.ones((7, 7), np.uint8))
    beyond: Any = cv2.dilate(within, np.ones((7, 7), np.uint8))
    assert np.abs(hard - 250)[core > 0].max() <= 1
    assert np.array_equal(hard[beyond == 0], frame[beyond == 0])
    assert np.abs(soft - 250)[core > 0].max() > 20  # it fades out long before
    white, half = np.full((64, 64), 255, np.uint8), np.full((64, 64), 255, np.uint8)
    half[:32] = 0
    for name, content in (("white", white), ("half", half), ("black", 0 * white)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), content)
    masks = {name: pasted(read_paste_mask(str(tmp_path / f"{name}.png"))) for name in ("white", "half", "black")}
    assert np.abs(masks["white"] - soft)[core > 0].max() <= 1
    assert np.array_equal(masks["black"], frame)
    middle = round(float(corners[:, 1].mean()))
    assert np.array_equal(masks["half"][: middle - 9], frame[: middle - 9])
    assert np.abs(masks["half"] - soft)[middle + 9 :][core[middle + 9 :] > 0].max() <= 1


def test_what_is_no_mask_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.png").write_bytes(b"no picture")
    for name in ("", "softer", str(tmp_path), str(tmp_path / "m.png")):
        with pytest.raises(UsageError, match="give soft, hard, or a picture of the aligned face"):
            read_paste_mask(name)
