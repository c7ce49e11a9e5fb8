"""Clips whose result is known: verify and the sweep hold lips to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from examples.synthetic_clip import write_clip, write_wav
from examples.tiny.clips import TinyClip, render_truth, tiny_clip
from examples.tiny.voice import speech
from lsx.bench.judged_clip import judged_clip, stable_sync_judge
from lsx.bench.options import BenchOptions
from lsx.bench.sweep import SweepInputs, sweep
from lsx.bench.workloads import seeded_chunk
from lsx.bundle.bundle import Bundle
from lsx.core.graph_names import LOOP_GRAPHS
from lsx.core.sampling import SamplingOptions
from lsx.core.tensors import Precision
from lsx.denoising.executor_cache import executor_cache_for
from lsx.engines.loading import opened_engines
from lsx.engines.registry import EngineOptions
from lsx.errors import UsageError
from lsx.faces.detector import opened_detector
from lsx.metrics.lips import crop_region, lip_figures, mouth_opening
from lsx.metrics.stable_sync import StableSyncFigures
from lsx.verify.inputs import clip_inputs
from lsx.verify.verify import VerifyOptions, verify
from tests.student_bundle import as_student

Bundles = Callable[[Precision, int], Bundle]
FRAMES = 20


@pytest.fixture(scope="module")
def dubbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path, TinyClip]:
    """Video, another voice, what the video ought to become, and that as it was drawn."""
    folder = tmp_path_factory.mktemp("dubbed")
    clip = tiny_clip(11, FRAMES)
    truth = render_truth(clip, speech(2, 5)[16000:], FRAMES)
    video = write_clip(folder / "video.mp4", iter(clip.frames), crf=1)
    known = write_clip(folder / "truth.mp4", iter(truth.frames), crf=1)
    return video, write_wav(folder / "voice.wav", truth.samples), known, truth


def test_the_truth_is_cut_out_where_the_faces_are(dubbed: tuple[Path, Path, Path, TinyClip], bundle: Bundles) -> None:
    video, audio, known, truth = dubbed
    opened = bundle("fp32", 128)
    with opened_detector(opened) as detector:
        chunks = list(clip_inputs((video, audio), detector, opened.model, truth=known))
        same = list(clip_inputs((video, audio), detector, opened.model, truth=video))
    assert [chunk.new for chunk in chunks] == [16, 4]
    for chunk in same:
        assert chunk.truth is not None
        assert np.array_equal(chunk.truth, chunk.faces)
    faces = np.concatenate([chunk.truth[-chunk.new :] for chunk in chunks if chunk.truth is not None])
    assert np.corrcoef(mouth_opening(faces, crop_region(128)), truth.truth.opening)[0, 1] > 0.95
    figures = lip_figures(faces, faces)
    assert figures.correlation == pytest.approx(1)
    assert (figures.lag, figures.psnr) == (0, np.inf)


def test_verify_says_what_the_lips_do(dubbed: tuple[Path, Path, Path, TinyClip], bundle: Bundles) -> None:
    video, audio, known, _ = dubbed
    settings = VerifyOptions(clip=(video, audio), truth=known, max_chunks=1, record=False)
    report = verify(bundle("fp32", 64), settings, options=SamplingOptions(steps=1, guidance=1.0))
    assert report.clip is not None
    assert report.clip.lips is not None
    assert report.clip.expected_lips is not None
    # seeded noise moves no lips, but the engines move it as the reference does
    assert report.clip.lips.correlation == pytest.approx(report.clip.expected_lips.correlation, abs=0.01)
    assert report.clip.lips.psnr == pytest.approx(report.clip.expected_lips.psnr, abs=0.1)
    assert any(line.startswith("lips against the truth, engine: sync correlation") for line in report.clip.lines())


def test_a_students_lips_are_compared_with_its_teachers(
    dubbed: tuple[Path, Path, Path, TinyClip], bundle: Bundles
) -> None:
    video, audio, known, _ = dubbed
    plain = bundle("fp32", 64)
    limits = {"teacher_correlation": 1.0}
    settings = VerifyOptions(clip=(video, audio), truth=known, teacher=plain.path, thresholds=limits, record=False)
    made_of = {"teacher": plain.manifest.model.checkpoint["unet"], "teacher_guidance": 2.0}
    report = verify(as_student(plain, **made_of), settings)
    beside = report.teacher
    assert beside is not None
    assert (beside.options["steps"], beside.options["sampler"], beside.options["guidance"]) == (20, "ddim", 2.0)
    assert beside.made_of_it is True
    # what the sweep makes of the teacher at its settings, by a way of its own
    with opened_engines(plain, "onnxruntime", LOOP_GRAPHS, EngineOptions()) as engines:
        executors = executor_cache_for(engines, plain.model)
        judged = judged_clip(plain, video, audio, truth=known)
        expected = judged.verdict(executors, plain, SamplingOptions(guidance=2.0)).lips
        executors.close()
    assert expected is not None
    assert beside.teacher_lips is not None
    assert beside.teacher_lips.correlation == pytest.approx(expected.correlation, abs=1e-6)
    assert beside.teacher_lips.psnr == pytest.approx(expected.psnr, abs=1e-4)
    assert beside.lips.correlation < 1
    assert report.failures == [f"teacher_correlation is {beside.lips.correlation:.6f}, at least 1 is wanted"]
    assert report.bisection == []  # no graph is to blame for it
    assert report.as_json()["teacher"]["lips"]["lag"] == beside.lips.lag


def test_a_teacher_of_another_size_is_refused(dubbed: tuple[Path, Path, Path, TinyClip], bundle: Bundles) -> None:
    video, audio, _, _ = dubbed
    settings = VerifyOptions(clip=(video, audio), teacher=bundle("fp32", 128).path, record=False)
    with pytest.raises(UsageError, match="of another model or size"):
        verify(as_student(bundle("fp32", 64)), settings)
    with pytest.raises(UsageError, match="--teacher is of a clip"):
        VerifyOptions(teacher=video)
    with pytest.raises(UsageError, match="give --teacher BUNDLE too"):
        VerifyOptions(thresholds={"teacher_correlation": 0.9})


class Judge:
    """In StableSyncNet's place: it says how much it was shown."""

    def judge(self, faces: NDArray[np.uint8], samples: NDArray[np.int16]) -> StableSyncFigures:
        return StableSyncFigures(cosine=len(faces) / 100, margin=0, offset=len(samples) // 640)


def test_a_sweep_says_what_every_setting_costs(dubbed: tuple[Path, Path, Path, TinyClip], bundle: Bundles) -> None:
    video, audio, known, _ = dubbed
    opened = bundle("fp32", 64)
    judged = judged_clip(opened, video, audio, truth=known, judge=Judge())  # type: ignore[arg-type]
    assert sum(len(chunk.heard) for chunk in judged.chunks) == FRAMES * 640
    inputs = SweepInputs(*seeded_chunk(opened.model), "seeded", judged)
    settings = (("ddim", 1, None),)
    found = sweep([opened], "onnxruntime", 1.0, EngineOptions(), settings, inputs=inputs)  # type: ignore[arg-type]
    (point,) = found.points
    assert point.correlation is not None
    assert -1 <= point.correlation <= 1
    assert point.mouth_psnr is not None
    assert 0 < point.mouth_psnr < 30
    assert (point.stable_sync, point.stable_sync_offset) == (FRAMES / 100, FRAMES)


def test_what_judges_a_sweep_is_asked_for_with_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--auxiliary is of a clip in a sweep"):
        BenchOptions(auxiliary=tmp_path, sweep=True)
    with pytest.raises(UsageError, match=r"no stable_syncnet\.pt in it"):
        stable_sync_judge(tmp_path)


def test_a_truth_of_other_frames_is_refused(
    dubbed: tuple[Path, Path, Path, TinyClip], bundle: Bundles, tmp_path: Path
) -> None:
    video, audio, _, _ = dubbed
    other = write_clip(tmp_path / "other.mp4", iter(np.zeros((4, 128, 256, 3), np.uint8)))
    opened = bundle("fp32", 64)
    with opened_detector(opened) as detector, pytest.raises(UsageError, match="its frames are 256 x 128"):
        list(clip_inputs((video, audio), detector, opened.model, truth=other))
    with pytest.raises(UsageError, match="--truth is of a clip"):
        VerifyOptions(truth=other)
