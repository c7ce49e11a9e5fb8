"""A bundle as Triton's model: its configuration by Triton's own schema, and its code under a stand-in of the server."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples.synthetic_clip import portrait_frames, speech, write_clip, write_wav
from lsx import LipSync, SoundReader, VideoReader
from lsx.bundle.bundle import Bundle
from lsx.cli.main import main
from lsx.core.tensors import Precision
from lsx.errors import OutputError, UsageError
from lsx.serving.triton.repository import CONFIG, export_repository
from tests.serving.triton_stand_in import Request, StandIn

Bundles = Callable[[Precision, int], Bundle]


@pytest.fixture(scope="module")
def repository(bundle: Bundles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("triton") / "models"
    with pytest.raises(SystemExit) as ended:
        main(["triton", "export", str(bundle("fp32", 64).path), "-o", str(folder), "--gpus", "none"])
    assert ended.value.code == 0
    return folder


@pytest.fixture(scope="module")
def served(repository: Path) -> Iterator[tuple[Any, StandIn]]:
    """The model as the server loads it, from the repository's copy."""
    folder = repository / "latentsync"
    stand_in = StandIn((folder / CONFIG).read_text())
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "triton_python_backend_utils", stand_in.module)
        spec = importlib.util.spec_from_file_location("triton_model", folder / "1" / "model.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        model = module.TritonPythonModel()
        model.initialize(stand_in.arguments(str(folder)))
        yield model, stand_in
        model.finalize()


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("media")
    video = write_clip(folder / "face.mp4", portrait_frames(24, 256, 192))
    sound = write_wav(folder / "speech.wav", speech(1.2))
    return {"VIDEO": video.read_bytes(), "AUDIO": sound.read_bytes()}


def _options(**options: Any) -> bytes:
    return json.dumps({"steps": 1} | options).encode()


def test_the_repository(repository: Path, bundle: Bundles) -> None:
    folder = repository / "latentsync"
    config = StandIn((folder / CONFIG).read_text()).config
    assert config.name == folder.name  # which the schema knows nothing of, and the server demands
    assert (config.backend, config.max_batch_size, config.model_transaction_policy.decoupled) == ("python", 0, True)
    assert [(group.count, group.kind, list(group.gpus)) for group in config.instance_group] == [(1, 2, [])]  # KIND_CPU
    inside = Bundle.open(folder / "1" / "bundle")
    assert inside.manifest == bundle("fp32", 64).manifest
    inside.verify()
    on_gpus = export_repository(inside, repository, name="two", gpus=(0, 2))
    [group] = StandIn((on_gpus / CONFIG).read_text()).config.instance_group
    assert (group.count, group.kind, list(group.gpus)) == (1, 1, [0, 2])  # KIND_GPU
    assert export_repository(inside, repository, name="two") == on_gpus  # once more, in its place


def test_frames_as_they_are_ready(
    served: tuple[Any, StandIn], media: dict[str, bytes], repository: Path, tmp_path: Path
) -> None:
    model, stand_in = served
    request = Request(stand_in.config, media | {"OPTIONS": _options(seed=5)})
    assert model.execute([request]) is None  # as decoupled models answer
    assert request.final
    firsts = [int(answer.tensors["FIRST"][0]) for answer in request.answers]
    assert firsts == [0, 16]
    made = np.concatenate([answer.tensors["FRAMES"] for answer in request.answers])
    paths = [tmp_path / name for name in media]
    for path in paths:
        path.write_bytes(media[path.name])
    frames, samples = VideoReader(paths[0]).frames(), SoundReader(paths[1]).samples()
    with (
        LipSync.open(repository / "latentsync" / "1" / "bundle") as lipsync,
        lipsync.stream(frames, samples, steps=1, seed=5) as stream,
    ):
        assert np.array_equal(made, np.stack(list(stream)))


def test_the_whole_file(served: tuple[Any, StandIn], media: dict[str, bytes], tmp_path: Path) -> None:
    model, stand_in = served
    request = Request(stand_in.config, media | {"OPTIONS": _options(output="mp4", crf=30)})
    model.execute([request])
    [answer] = request.answers
    result = tmp_path / "result.mp4"
    result.write_bytes(answer.tensors["RESULT"][0])
    assert len(list(VideoReader(result).frames())) == 30
    assert request.final


def test_a_client_that_goes_is_left(served: tuple[Any, StandIn], media: dict[str, bytes]) -> None:
    model, stand_in = served
    gone = [
        Request(stand_in.config, media | {"OPTIONS": _options()}, leave_after=1),
        Request(stand_in.config, media | {"OPTIONS": _options(output="mp4")}, leave_after=0),
    ]
    model.execute(gone)
    errors = [request.answers[-1].error for request in gone]
    assert [error and error.code() for error in errors] == ["CANCELLED", "CANCELLED"]
    assert [len(request.answers) for request in gone] == [2, 1]
    assert all(request.final for request in gone)


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        ({"OPTIONS": _options(stepz=2)}, "INVALID_ARG", "stepz"),
        ({"OPTIONS": _options(resume_dir="there")}, "INVALID_ARG", "resume_dir"),
        ({"OPTIONS": _options(mask="/etc/passwd")}, "INVALID_ARG", "mask"),
        ({"OPTIONS": _options(steps=0)}, "INVALID_ARG", "steps: "),
        ({"OPTIONS": b"{"}, "INVALID_ARG", "Expecting"),
        ({"OPTIONS": b"[]"}, "INVALID_ARG", "OPTIONS is no object"),
        ({"VIDEO": b"no video"}, "INVALID_ARG", "video: "),
        ({"AUDIO": b""}, "INVALID_ARG", "audio: "),
    ],
)
def test_what_is_wrong_with_one_request_stops_no_other(
    given: dict[str, bytes], code: str, said: str, served: tuple[Any, StandIn], media: dict[str, bytes]
) -> None:
    model, stand_in = served
    wrong = Request(stand_in.config, {"OPTIONS": _options()} | media | given)
    right = Request(stand_in.config, media | {"OPTIONS": _options()})
    model.execute([wrong, right])
    [answer] = wrong.answers
    assert answer.error is not None
    assert answer.error.code() == code
    assert said in answer.error.message()
    assert wrong.final
    assert len(right.answers) == 2


def test_an_input_that_is_not_there(served: tuple[Any, StandIn], media: dict[str, bytes]) -> None:
    model, stand_in = served
    request = Request(stand_in.config, {"VIDEO": media["VIDEO"]})
    model.execute([request])
    assert request.answers[0].error is not None
    assert request.answers[0].error.message() == "there is no AUDIO"


def test_what_is_refused(bundle: Bundles, tmp_path: Path) -> None:
    opened = bundle("fp32", 64)
    for wrong in ({"name": "a/b"}, {"name": ".hidden"}, {"gpus": (0, 0)}, {"gpus": (-1,)}):
        with pytest.raises(UsageError, match=f"^{next(iter(wrong))} is "):
            export_repository(opened, tmp_path / "models", **wrong)
    assert not (tmp_path / "models").exists()
    (tmp_path / "models" / "latentsync").mkdir(parents=True)
    (tmp_path / "models" / "latentsync" / "mine").touch()
    with pytest.raises(OutputError):
        export_repository(opened, tmp_path / "models")
    assert [path.name for path in (tmp_path / "models" / "latentsync").iterdir()] == ["mine"]
