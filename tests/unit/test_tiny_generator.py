"""The generator of tiny faces: seeds, sound, what the sound does to the mouth, and what it does not touch."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from examples.tiny.clips import motion, render_truth, tiny_clip
from examples.tiny.face import FACE_HEIGHT, Identity, Pose, lip_centre, mouth_region, points, render, to_frame
from examples.tiny.features import DROP, RAISE
from examples.tiny.mouth import mouth_track
from examples.tiny.rates import Scene
from examples.tiny.sheet import sheet
from examples.tiny.voice import SAMPLE_RATE, silence, speech
from lsx.faces.alignment import Aligner, crop_face, crop_size
from lsx.models.mask import mask_at, mask_raster

SEEDS = (0, 7, 123, 4_000_000_000)


def tone(frequency: float, level: float, seconds: float = 1.0) -> NDArray[np.int16]:
    """A sine; level : of its root mean square, dB below the largest."""
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    sine = np.sqrt(2) * 10 ** (level / 20) * np.sin(2 * np.pi * frequency * t)
    return np.asarray(np.rint(sine * 32767), dtype=np.int16)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_voice_is_its_seeds_and_has_pauses(seed: int) -> None:
    sound = speech(6, seed)
    assert sound.dtype == np.int16
    assert sound.shape == (6 * SAMPLE_RATE,)
    assert np.array_equal(sound, speech(6, seed))
    assert not np.array_equal(sound, speech(6, seed + 1))
    assert 8000 < np.abs(sound).max() < 32767  # loud, and never cut
    track = mouth_track(sound, 150)
    assert 0.05 < (track.opening == 0).mean() < 0.7
    assert track.opening.max() > 0.6
    assert np.ptp(track.width[track.opening > 0.2]) > 0.2


@pytest.mark.parametrize("seed", SEEDS)
def test_a_voice_has_its_pitch(seed: int) -> None:
    """The strongest repetition lies between 90 Hz less and 260 Hz plus the melody's swing; speakers differ."""
    sound = speech(6, seed).astype(np.float64)
    spectrum = np.abs(np.fft.rfft(sound, 2 * len(sound))) ** 2
    spectrum[: round(70 * 2 * len(sound) / SAMPLE_RATE)] = 0
    repetition = np.fft.irfft(spectrum)
    period = 40 + int(np.argmax(repetition[40:240]))
    assert 70 < SAMPLE_RATE / period < 400


def test_silence_shuts_the_mouth() -> None:
    track = mouth_track(silence(1), 25)
    assert (track.opening == 0).all()
    assert (track.width == 0.5).all()
    assert (mouth_track(np.zeros(0, np.int16), 5).opening == 0).all()


@pytest.mark.parametrize(("level", "wanted"), [(-45, 0.0), (-34, 0.25), (-28, 0.5), (-22, 0.75), (-10, 1.0)])
def test_opening_is_linear_in_decibels(level: float, wanted: float) -> None:
    """From -40 dB, shut, to -16 dB, wide open."""
    track = mouth_track(tone(700, level), 25)
    np.testing.assert_allclose(track.opening[3:-3], wanted, atol=0.01)


def test_width_follows_the_centroid() -> None:
    """Tones at 300 Hz, at 1100 Hz and at their geometric mean: narrowest, widest, and the middle."""
    for frequency, wanted in ((300, 0.0), (np.sqrt(300 * 1100), 0.5), (1100, 1.0)):
        track = mouth_track(tone(frequency, -20), 25)
        np.testing.assert_allclose(track.width[3:-3], wanted, atol=0.03)


def test_a_mouth_knows_60_ms_to_each_side_alike() -> None:
    """A burst of 10 ms in the middle of frame 10 opens frames 9 to 11, the outer two alike."""
    sound = silence(1)
    middle = 10 * 640 + 320
    sound[middle - 80 : middle + 80] = tone(1000, -12, 0.01)
    opening = mouth_track(sound, 25).opening
    assert np.flatnonzero(opening).tolist() == [9, 10, 11]
    assert opening[9] == pytest.approx(opening[11], rel=1e-6)
    assert opening[10] > 2 * opening[9]


def test_the_rest_of_the_sound_does_not_matter() -> None:
    sound = speech(4, 5)
    whole = mouth_track(sound, 100)
    loud = sound.copy()
    loud[: 40 * 640] = 30000
    changed = mouth_track(loud, 100)
    np.testing.assert_array_equal(whole.opening[42:], changed.opening[42:])
    np.testing.assert_allclose(whole.width[42:], changed.width[42:], atol=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_an_identity_is_its_seeds(seed: int) -> None:
    identity = Identity.from_seed(seed)
    assert identity == Identity.from_seed(seed)
    assert identity != Identity.from_seed(seed + 1)
    frame = render(identity, 0.5, 0.5, size=(96, 128))
    assert frame.shape == (96, 128, 3)
    assert frame.dtype == np.uint8
    np.testing.assert_array_equal(frame, render(Identity.from_seed(seed), 0.5, 0.5, size=(96, 128)))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_sound_stays_inside_the_mask(seed: int) -> None:
    """Between shut and wide open, outside the paint mask nothing changes by a single level; inside much does."""
    identity, pose = Identity.from_seed(seed), motion(seed, 40)[39]
    keep = mask_at(mask_raster(), 256) > 0
    affine = Aligner(256).affine(np.round(points(identity, pose, (256, 256))))
    frames = [render(identity, *mouth, pose) for mouth in ((0.0, 0.5), (1.0, 1.0), (1.0, 0.0))]
    shut, wide, narrow = (crop_face(frame, affine, 256).astype(int) for frame in frames)
    for other in (wide, narrow):
        assert (np.abs(other - shut)[keep] == 0).all()
        assert (np.abs(other - shut).max(axis=2) > 40).sum() > 500
    x0, y0, x1, y1 = mouth_region(identity, pose, (256, 256))
    width, height = crop_size(256)
    corners = np.array([[x0, y0, 1], [x1, y0, 1], [x0, y1, 1], [x1, y1, 1]]) @ affine.T * [256 / width, 256 / height]
    column, row = np.rint(corners).astype(int).T
    assert not keep[row, column].any()


@pytest.mark.parametrize("seed", SEEDS)
def test_opening_and_width_are_drawn_in_their_lengths(seed: int) -> None:
    """What opens is RAISE + DROP cm high, times the opening; where lips are moves with the pose."""
    identity = Identity.from_seed(seed)
    pose = Pose(size=0.9, y=0.35)
    size = (512, 512)
    scale = pose.size * size[0] / FACE_HEIGHT
    shut = render(identity, 0, 0.5, pose, size).astype(int)
    x, _ = np.rint(lip_centre(identity, pose, size)).astype(int)
    for opening in (0.3, 0.6, 1.0):
        wide = render(identity, opening, 0.5, pose, size).astype(int)
        x0, y0, x1, y1 = np.rint(mouth_region(identity, pose, size)).astype(int)
        column = wide[y0:y1, x, 1]
        tall = np.flatnonzero((column < 45) | (column > 225)).size  # dark, tongue and teeth
        assert tall / scale == pytest.approx((RAISE + DROP) * opening, abs=0.35)
        middle = (y0 + y1) // 2  # above the jaw's edge, which moves too
        changed = np.flatnonzero((np.abs(wide - shut).max(axis=2) > 60)[y0 - 30 : middle].any(axis=0))
        assert x0 <= changed.min()
        assert changed.max() <= x1


def test_a_pose_is_a_similarity() -> None:
    """Twice as large, shifted and turned by a right angle: brows, nose and lips go along."""
    identity = Identity.from_seed(3)
    size = (200, 300)
    plain = Pose(x=0.5, y=0.5, size=0.3)
    turned = replace(plain, x=0.6, y=0.4, size=0.6, angle=90)
    before, after = points(identity, plain, size), points(identity, turned, size)
    centre_before, centre_after = to_frame(plain, size)[:, 2], to_frame(turned, size)[:, 2]
    np.testing.assert_allclose(centre_after - centre_before, [30, -20])
    quarter = (before - centre_before) @ np.array([[0, 1], [-1, 0]]) * 2
    np.testing.assert_allclose(after - centre_after, quarter, atol=1e-9)


def test_a_picture_turned_is_the_pose_turned() -> None:
    identity = Identity.from_seed(4)
    upright = render(identity, 0.7, 0.5, Pose(x=0.5, y=0.5, size=0.4))
    turned = render(identity, 0.7, 0.5, Pose(x=0.5, y=0.5, size=0.4, angle=6))
    affine = cv2.getRotationMatrix2D((127.5, 127.5), -6, 1)
    expected = cv2.warpAffine(upright, affine, (256, 256), flags=cv2.INTER_LINEAR)
    face = np.s_[90:200, 90:166]
    assert np.abs(turned[face].astype(float) - expected[face]).mean() < 2.5


@pytest.mark.parametrize("seed", SEEDS)
def test_motion_is_small_smooth_and_blinks(seed: int) -> None:
    poses = motion(seed, 250)
    assert poses[:100] != motion(seed + 1, 100)
    assert max(pose.blink for pose in poses) == 1
    tracks = np.array([(pose.x, pose.y, pose.size, pose.angle) for pose in poses])
    assert (np.ptp(tracks, axis=0) < [0.05, 0.03, 0.03, 8]).all()
    assert (np.abs(np.diff(tracks, axis=0)) < [0.003, 0.002, 0.002, 0.5]).all()
    assert (np.abs(tracks[:, 3]) < 6).all()


def test_a_clip_and_its_truth_under_another_sound() -> None:
    clip = tiny_clip(9, 12, size=(128, 128))
    assert clip.frames.shape == (12, 128, 128, 3)
    assert clip.samples.shape == (12 * 640,)
    np.testing.assert_array_equal(clip.samples, speech(12 * 0.04, 9))
    again = render_truth(clip, clip.samples)
    np.testing.assert_array_equal(again.frames, clip.frames)
    dubbed = render_truth(clip, speech(2, 10)[: 30 * 640 - 5])
    assert len(dubbed.frames) == 30
    assert dubbed.poses[12:24] == clip.poses[::-1]
    assert dubbed.poses[24:] == clip.poses[:6]
    np.testing.assert_array_equal(dubbed.truth.opening, mouth_track(dubbed.samples, 30).opening)
    np.testing.assert_array_equal(dubbed.regions[12], clip.regions[11])
    shut = render_truth(clip, silence(0.1), frames=12)
    assert (shut.truth.opening == 0).all()
    assert shut.samples.shape == clip.samples.shape
    other = tiny_clip(9, 12, size=(128, 128), sound=speech(2, 10))
    assert other.poses == clip.poses
    np.testing.assert_array_equal(other.truth.opening[:10], dubbed.truth.opening[:10])


def test_a_sheet_has_a_row_for_each_identity() -> None:
    picture = sheet(range(5, 7), 64)
    assert picture.shape == (128, 384, 3)
    np.testing.assert_array_equal(picture[64:, :64], render(Identity.from_seed(6), 0.0, 0.5, size=(64, 64)))


def test_a_scene_at_any_rate_has_the_mouth_of_its_time() -> None:
    samples = speech(2.0, 5)
    scene, truth = Scene(4, samples, 2.0), mouth_track(samples, 50).opening
    np.testing.assert_allclose(scene.openings(np.arange(50) / 25), truth, atol=1e-12)
    later = mouth_track(samples[320:], 40).opening  # the same 20 ms on: between the frames
    np.testing.assert_allclose(scene.openings(np.arange(40) / 25 + 0.02), later, atol=1e-12)
    frames, regions = scene.drawn(np.arange(5) / 50)
    assert frames.shape == (5, 256, 256, 3)
    assert regions.shape == (5, 4)
