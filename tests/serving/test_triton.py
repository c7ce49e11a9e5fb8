"""A bundle as Triton's model: its configuration by Triton's own schema, and its code under a stand-in of the server."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from google.protobuf import text_format
from onnx import TensorProto
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig

from examples.synthetic_clip import portrait_frames, speech, write_clip, write_wav
from lsx import LipSync, SoundReader, VideoReader
from lsx.bundle.bundle import Bundle
from lsx.bundle.manifest import FileEntry, PlanEntry
from lsx.cli.main import main
from lsx.core.graph_names import MODEL_GRAPHS
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


@pytest.fixture(scope="module")
def graph_folders(bundle: Bundles, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The models of `--graphs`, by their graph."""
    folder = tmp_path_factory.mktemp("graphs") / "models"
    with pytest.raises(SystemExit) as ended:
        main(["triton", "export", str(bundle("fp32", 64).path), "-o", str(folder), "--gpus", "none", "--graphs"])
    assert ended.value.code == 0
    assert (folder / "latentsync" / CONFIG).is_file()
    return {path.name.removeprefix("latentsync-"): path for path in folder.glob("latentsync-*")}


def _config(folder: Path) -> Any:
    """As Triton's own schema reads it."""
    return text_format.Parse((folder / CONFIG).read_text(), ModelConfig())


_KINDS = {"TYPE_FP32": TensorProto.FLOAT, "TYPE_UINT8": TensorProto.UINT8, "TYPE_INT64": TensorProto.INT64}


def test_every_graph_is_a_model_whose_tensors_are_the_files_own(graph_folders: dict[str, Path]) -> None:
    assert set(graph_folders) == set(MODEL_GRAPHS)
    for folder in graph_folders.values():
        config = _config(folder)
        assert (config.name, config.platform, config.max_batch_size) == (folder.name, "onnxruntime_onnx", 0)
        file = folder / "1" / config.default_model_filename
        graph = onnx.load(str(file), load_external_data=False).graph
        for stated, values in ((config.input, graph.input), (config.output, graph.output)):
            assert [tensor.name for tensor in stated] == [value.name for value in values]
            for tensor, value in zip(stated, values, strict=True):
                kind = value.type.tensor_type
                assert _KINDS[DataType.Name(tensor.data_type)] == kind.elem_type
                assert list(tensor.dims) == [-1 if dim.dim_param else dim.dim_value for dim in kind.shape.dim]


def test_the_warm_up_of_each_graph_runs_where_it_lies(graph_folders: dict[str, Path]) -> None:
    """With the data files that it refers to, and lengths that it takes."""
    kinds = {"TYPE_FP32": np.float32, "TYPE_UINT8": np.uint8, "TYPE_INT64": np.int64}
    for folder in graph_folders.values():
        config = _config(folder)
        session = onnxruntime.InferenceSession(str(folder / "1" / config.default_model_filename))
        (warm_up,) = config.model_warmup
        feed = {
            name: np.zeros(list(given.dims), kinds[DataType.Name(given.data_type)])
            for name, given in warm_up.inputs.items()
        }
        assert all(given.zero_data for given in warm_up.inputs.values())
        made = session.run(None, feed)
        assert len(made) == len(config.output)


def test_plans_of_the_full_library_go_before_onnx(bundle: Bundles, tmp_path: Path) -> None:
    copied = Bundle.open(shutil.copytree(bundle("fp32", 64).path, tmp_path / "bundle"))
    for backend, target in (("tensorrt", "sm89"), ("tensorrt", "sm120"), ("tensorrt-rtx", "portable")):
        name = f"plans/unet.{backend}.{target}.plan"
        (copied.path / "plans").mkdir(exist_ok=True)
        (copied.path / name).write_bytes(target.encode())
        copied.add_plan(
            PlanEntry(
                graph="unet",
                precision="fp32",
                file=FileEntry.of(copied.path, name),
                backend=backend,
                library_version="11.0",
                target=target,
                key=target,
                onnx=(),
                profiles=({"b": (1, 2, 2)},),
                seconds=1,
                peak_bytes=1,
            )
        )
    export_repository(copied, tmp_path / "models", name="talk", gpus=(1,), graphs=True)
    folder = tmp_path / "models" / "talk-unet"
    config = _config(folder)
    assert (config.platform, config.default_model_filename) == ("tensorrt_plan", "unet.tensorrt.sm89.plan")
    assert dict(config.cc_model_filenames) == {"8.9": "unet.tensorrt.sm89.plan", "12.0": "unet.tensorrt.sm120.plan"}
    assert sorted(path.name for path in (folder / "1").iterdir()) == sorted(config.cc_model_filenames.values())
    assert [list(group.gpus) for group in config.instance_group] == [[1]]
    assert config.model_warmup[0].inputs["sample"].dims[0] == 2
    assert _config(tmp_path / "models" / "talk-step").platform == "onnxruntime_onnx"
    export_repository(copied, tmp_path / "cpu", gpus=(), graphs=True)
    assert _config(tmp_path / "cpu" / "latentsync-unet").platform == "onnxruntime_onnx"
