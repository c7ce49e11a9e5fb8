"""The graphs as TensorRT's parser sees them: shapes, norms and attention, and the log of a failure."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import onnx
import pytest

from lsx.bundle.bundle import Bundle
from lsx.bundle.manifest import MANIFEST
from lsx.cli.main import main
from lsx.core.atomic_files import sha256_of
from lsx.core.graph_names import FACE_GRAPHS
from lsx.core.tensors import Precision
from lsx.engines.tensorrt.building import PLANNED
from lsx.engines.tensorrt.libraries import LIBRARIES
from lsx.engines.tensorrt.network import network_from_graph
from tests.tensorrt_builds import RESOLUTIONS

pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX has wheels for x86-64 alone")

Bundles = Callable[[Precision, int], Bundle]


@pytest.mark.parametrize("graph", [*PLANNED, *FACE_GRAPHS])
def test_the_network_has_the_contracts_shapes(bundle: Bundles, graph: str) -> None:
    """With the inputs fixed nothing varies: TensorRT sees static shapes throughout."""
    trt: Any = LIBRARIES["tensorrt-rtx"].module()
    opened = bundle("fp16", 64)
    entry = opened.graph(graph)
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network, _parser = network_from_graph(LIBRARIES["tensorrt-rtx"], builder, logger, opened, graph)
    lengths = {"b": 2, "F": 16, "n": 1}
    wanted = [[lengths[n] if isinstance(n, str) else n for n in t.shape] for t in (*entry.inputs, *entry.outputs)]
    for index, shape in enumerate(wanted[: len(entry.inputs)]):
        network.get_input(index).shape = trt.Dims(shape)
    given: list[Any] = [network.get_output(i).shape for i in range(network.num_outputs)]
    assert [list(shape) for shape in given] == wanted[len(entry.inputs) :]


@pytest.mark.parametrize("precision", list(RESOLUTIONS))
@pytest.mark.parametrize("graph", ["unet", "unet_shallow", "vae_encoder", "vae_decoder"])
def test_norms_and_attention_reach_tensorrt_whole(bundle: Bundles, graph: str, precision: Precision) -> None:
    """TensorRT gets the file with GroupNormalization: one layer of its own for each norm, none of ONNX Runtime's forms.

    TensorRT 11 is told nothing of their precision: INormalizationLayer has no such property any more, and in a strongly
    typed network a norm's inputs say it.
    """
    trt: Any = LIBRARIES["tensorrt-rtx"].module()
    opened = bundle(precision, RESOLUTIONS[precision])
    entry = opened.graph(graph)
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network, _parser = network_from_graph(LIBRARIES["tensorrt-rtx"], builder, logger, opened, graph)
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    norms = [layer for layer in layers if "NORMALIZATION" in str(layer.type)]
    wanted = entry.operators.get("GroupNormalization", 0) + entry.operators.get("LayerNormalization", 0)
    assert len(norms) == wanted > 0
    assert all(not hasattr(trt.INormalizationLayer, name) for name in ("compute_precision", "precision"))


def test_the_log_of_a_failed_build(
    own: Bundle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end with --debug alone; all of it with LSX_TENSORRT_LOG; one line where neither is asked for."""
    path = own.path / "onnx" / "step.onnx"
    model = onnx.load(str(path), load_external_data=False)
    model.graph.node[0].op_type = "Det"
    onnx.save(model, str(path))
    content = json.loads((own.path / MANIFEST).read_text())
    content["graphs"]["step"]["file"] |= {"sha256": sha256_of(path), "size": path.stat().st_size}
    (own.path / MANIFEST).write_text(json.dumps(content))
    command = ["build", str(own.path), "--backend", "tensorrt-rtx", "--graphs", "step"]

    def errors(*more: str) -> list[str]:
        with pytest.raises(SystemExit) as ended:
            main([*more, *command])
        assert ended.value.code == 1
        return capsys.readouterr().err.strip().splitlines()

    quiet = [line for line in errors() if "tensorrt" in line.lower()]
    assert len(quiet) == 1
    assert quiet[0].startswith("lsx: BuildError: step: ")
    debugged = errors("--debug")
    start = debugged.index("the end of TensorRT's log:")
    assert any(line.startswith("verbose: ") for line in debugged[start:])
    monkeypatch.setenv("LSX_TENSORRT_LOG", "verbose")
    assert sum(line.startswith("tensorrt verbose: ") for line in errors()) > 10
    monkeypatch.setenv("LSX_TENSORRT_LOG", "loud")
    assert "LSX_TENSORRT_LOG is loud" in errors_of_usage(command, capsys)


def errors_of_usage(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 2
    return capsys.readouterr().err
