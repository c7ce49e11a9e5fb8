"""A student's bundle: its own settings are the defaults of all that runs it, and others are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples.synthetic_clip import portrait_frames, speech
from lsx import LipSync, SamplingOptions
from lsx.bench.contenders import chosen_bundles, label_of
from lsx.bench.options import BenchOptions
from lsx.bundle.bundle import Bundle
from lsx.bundle.manifest import MANIFEST
from lsx.bundle.sampling import sampling_of
from lsx.cli.options import sampling_keywords
from lsx.core.tensors import Precision
from lsx.engines.loading import load_engine
from lsx.engines.onnxruntime import OnnxRuntimeBackend
from lsx.engines.tensorrt.build_options import BuildOptions
from lsx.errors import CheckpointError, UsageError
from lsx.export.exporter import student_of
from lsx.models.checkpoint_files import SAMPLING_FILE, CheckpointFiles
from lsx.runtime.batch_jobs import read_jobs
from lsx.serving.job_options import run_options
from tests.student_bundle import STUDENT_ENTRY, as_student

OWN = SamplingOptions(steps=2, guidance=1.0, sampler="ddim-trailing", cache_interval=None)


@pytest.fixture
def student(bundle: Callable[[Precision, int], Bundle]) -> Bundle:
    return as_student(bundle("fp32", 64))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"steps": 4}, "steps is 4"),
        ({"sampler": "ddim"}, "sampler is ddim"),
        ({"guidance": 1.5}, "guidance is 1.5"),
    ],
)
def test_settings_of_another_kind_are_refused(student: Bundle, options: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError) as raised:
        sampling_of(student, None, options, "options")
    assert str(raised.value) == (
        f"{told}; {student.path} is a student, made for 2 steps of ddim-trailing without guidance. "
        f"Leave {next(iter(options))} out"
    )


def test_its_own_settings_are_what_nobody_says(
    student: Bundle, bundle: Callable[[Precision, int], Bundle], tmp_path: Path
) -> None:
    assert student.sampling == OWN
    nothing = sampling_keywords(steps=None, guidance=None, cache_interval=None)
    assert sampling_of(student, None, nothing, "options") == OWN
    chosen = sampling_keywords(steps=2, guidance=1, cache_interval="2", seed=3)
    assert sampling_of(student, None, chosen, "options") == SamplingOptions(
        steps=2, guidance=1.0, sampler="ddim-trailing", cache_interval=2, seed=3
    )
    assert BuildOptions().of_bundle(student).batches == (1,)
    assert BuildOptions(guidance="both").of_bundle(student).batches == (2, 1)
    jobs = tmp_path / "jobs.csv"
    jobs.write_text("video,audio,seed\na.mp4,s.wav,7\n")
    assert read_jobs(jobs, student.sampling)[0].sampling == SamplingOptions(
        steps=2, guidance=1.0, sampler="ddim-trailing", cache_interval=None, seed=7
    )
    assert run_options({"crf": 20}, sampling=student.sampling).sampling == OWN
    plain = bundle("fp32", 64)
    assert plain.sampling == sampling_of(plain, None, nothing, "options") == SamplingOptions()
    assert BuildOptions().of_bundle(plain).batches == (2,)


def test_its_runs(student: Bundle, bundle: Callable[[Precision, int], Bundle]) -> None:
    frames, samples = list(portrait_frames(16)), speech(0.64)

    def dubbed(opened: Bundle, *options: SamplingOptions) -> np.ndarray[Any, Any]:
        with (
            LipSync.open(opened, "onnxruntime", threads=1) as lipsync,
            lipsync.stream(frames, samples, None, *options) as stream,
        ):
            return np.stack(list(stream))

    assert np.array_equal(dubbed(student), dubbed(bundle("fp32", 64), OWN))
    with LipSync.open(student, "onnxruntime", threads=1) as lipsync:
        for refused in (lipsync.stream, lipsync.warm_up):
            arguments: tuple[Any, ...] = () if refused == lipsync.warm_up else (frames, samples)
            with pytest.raises(UsageError, match="made for 2 steps"):
                refused(*arguments, steps=20)
        assert lipsync.warm_up() == {}


def test_its_engines_are_loaded_for_one_half(student: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    monkeypatch.setattr(OnnxRuntimeBackend, "engine", lambda _self, _bundle, _graph, options: loaded.append(options))
    load_engine(student, "unet", "onnxruntime")
    load_engine(Bundle(student.path, student.manifest.model_copy(update={"student": None})), "unet", "onnxruntime")
    assert [options.guidance_batch for options in loaded] == [1, 2]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "Invalid JSON"),
        (json.dumps(STUDENT_ENTRY | {"steps": 0}), "steps is 0"),
        (json.dumps(STUDENT_ENTRY | {"sampler": "euler"}), "Input should be 'ddim'"),
        (json.dumps({"steps": 4}), "Field required"),
    ],
)
def test_what_a_checkpoint_misstates(content: str, told: str, tmp_path: Path) -> None:
    (tmp_path / SAMPLING_FILE).write_text(content)
    paths = {"unet": tmp_path, "whisper": tmp_path, "vae": tmp_path}
    with pytest.raises(CheckpointError) as raised:
        student_of(CheckpointFiles(**paths, sampling=tmp_path / SAMPLING_FILE))
    assert str(raised.value).startswith(f"{tmp_path / SAMPLING_FILE}: does not say how a student is sampled: ")
    assert told in str(raised.value)
    assert student_of(CheckpointFiles(**paths)) is None


def test_what_lsx_distill_writes_is_what_a_bundle_has(tmp_path: Path) -> None:
    (tmp_path / SAMPLING_FILE).write_text(json.dumps(STUDENT_ENTRY))
    paths = {"unet": tmp_path, "whisper": tmp_path, "vae": tmp_path}
    entry = student_of(CheckpointFiles(**paths, sampling=tmp_path / SAMPLING_FILE))
    assert entry is not None
    assert entry.options() == OWN
    assert entry.model_dump(mode="json") == STUDENT_ENTRY


def test_a_teacher_and_its_students_are_benched_beside_each_other(
    bundle: Callable[[Precision, int], Bundle], tmp_path: Path
) -> None:
    teacher = bundle("fp32", 64)

    def copy(name: str, unet: str, **changed: Any) -> Path:
        content = json.loads((teacher.path / MANIFEST).read_text())
        content["model"]["checkpoint"]["unet"] = unet
        (tmp_path / name).mkdir()
        (tmp_path / name / MANIFEST).write_text(json.dumps(content | changed))
        return tmp_path / name

    entry = STUDENT_ENTRY | {"teacher": teacher.manifest.model.checkpoint["unet"]}
    two, one = copy("two", "2" * 64, student=entry), copy("one", "1" * 64, student=entry | {"steps": 1})
    foreign = copy("foreign", "3" * 64, student=STUDENT_ENTRY)
    beside = BenchOptions(beside=(two, one))
    labels = ["fp32", "fp32, student of 2 steps", "fp32, student of 1 step"]
    assert [label_of(each) for each in chosen_bundles(teacher, beside)] == labels
    back = chosen_bundles(Bundle.open(one), BenchOptions(beside=(two, teacher.path)))
    assert [label_of(each) for each in back] == labels[::-1]
    assert len(chosen_bundles(teacher, BenchOptions(beside=(two, one), precisions=("fp32",)))) == 3
    for refused, told in (
        (BenchOptions(beside=(foreign,)), "is of another checkpoint"),
        (BenchOptions(beside=(two, two)), "is fp32, student of 2 steps, and so is"),
        (BenchOptions(beside=(two,), sweep=True), "two is a student, made for one setting"),
        (BenchOptions(beside=(two,), precisions=("int8",)), "has no int8; there are fp32, fp32, student of 2 steps"),
    ):
        with pytest.raises(UsageError, match=told):
            chosen_bundles(teacher, refused)
