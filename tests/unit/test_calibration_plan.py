"""Segments, and which calls are recorded: no video, no model."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from lsx.calibration.clips import Clip, ClipOptions, Segment, find_files, split
from lsx.calibration.recorder import plan_captures
from lsx.core.sampling import SamplingOptions
from lsx.denoising.schedule import schedule
from lsx.errors import CalibrationError, UsageError


def clip(name: str, *lengths: int) -> Clip:
    start, segments = 0, []
    for length in lengths:
        points = tuple((0.0,) * 6 for _ in range(length))
        segments.append(Segment(start=start, stop=start + length, reason=None, face=200, points=points))
        start += length
    return Clip(name=name, sha256=name, seconds=start / 25, reason=None, segments=tuple(segments))


@pytest.mark.parametrize("length", [1, 124, 125, 250, 251, 499, 501, 1000, 3333])
def test_shots_are_cut_into_5_to_10_seconds(length: int) -> None:
    pieces = list(split(70, 70 + length, ClipOptions()))
    assert pieces[0][0] == 70
    assert pieces[-1][1] == 70 + length
    assert all(a[1] == b[0] for a, b in pairwise(pieces))
    lengths = [stop - start for start, stop in pieces]
    assert max(lengths) <= 250
    assert length < 125 or min(lengths) >= 125


def test_calls_are_spread_over_clips_steps_and_halves() -> None:
    options = SamplingOptions(steps=20, cache_interval=3)
    graphs = [step.graph for step in schedule(options)]
    clips = [clip("a", 200, 150), clip("b", 130), Clip(name="c", sha256="c", seconds=0, reason="damaged")]
    captures = plan_captures(clips, 32, options, 16)
    assert len(captures) == 8
    assert [(capture.clip, capture.segment) for capture in captures[:4]] == [(0, 0), (1, 0), (0, 1), (0, 0)]
    full = [(step, half) for capture in captures for step, half in capture.steps.items() if graphs[step] == "unet"]
    assert len(full) == 32
    counts = np.bincount([step for step, _ in full], minlength=20)
    assert (counts[[0, 3, 6, 9, 12, 15, 18]] >= 3).all()
    assert sorted(half for _, half in full) == ["conditional"] * 16 + ["unconditional"] * 16
    assert sum(graphs[step] == "unet_shallow" for capture in captures for step in capture.steps) == 32
    for capture in captures:
        segment = clips[capture.clip].kept[capture.segment]
        assert 0 <= capture.offset <= segment.stop - segment.start - 16
    assert len({capture.offset for capture in captures}) > 3
    assert captures == plan_captures(clips, 32, options, 16)
    assert captures != plan_captures(clips, 32, SamplingOptions(steps=20, seed=1), 16)


def test_few_calls_and_none() -> None:
    (only,) = plan_captures([clip("a", 130)], 1, SamplingOptions(steps=4, guidance=1.0), 16)
    assert set(only.steps.values()) == {"conditional"}
    with pytest.raises(CalibrationError, match="no segment was kept"):
        plan_captures([Clip(name="c", sha256="c", seconds=0, reason="damaged")], 4, SamplingOptions(), 16)


def test_files_by_name(tmp_path: Path) -> None:
    for name in ("b/x.mp4", "a.mp4", ".hidden/y.mp4", ".z.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [name for name, _ in find_files([tmp_path])] == ["a.mp4", str(Path("b/x.mp4"))]
    assert [name for name, _ in find_files([tmp_path / "a.mp4", tmp_path])] == ["a.mp4", "a.mp4 (2)", "b/x.mp4"]
    with pytest.raises(UsageError, match="no such file"):
        find_files([tmp_path / "none"])


def test_options_are_checked() -> None:
    with pytest.raises(UsageError, match="at least twice"):
        ClipOptions(min_seconds=5, max_seconds=9)
    with pytest.raises(UsageError, match="min_face is 3"):
        ClipOptions(min_face=3)
