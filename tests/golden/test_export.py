"""What an export writes: contract, precision, manifest, and the commands that read it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from lsx.bundle.bundle import Bundle
from lsx.bundle.manifest import FORMS, MANIFEST
from lsx.cli.main import main
from lsx.core.atomic_files import sha256_of
from lsx.core.noise import named_noise
from lsx.core.tensors import Precision
from lsx.engines.loading import load_engine
from lsx.errors import EngineError, IntegrityError
from lsx.graphs.graph_specs import GRAPHS
from lsx.graphs.precision import FP32_ISLANDS

Bundles = Callable[[Precision, int], Bundle]

CONTRACT = {
    "audio_encoder": ["mel float32[n, 80, 3000]", "hidden_states float32[n, 1500, 5, 384]"],
    "vae_encoder": [
        "faces uint8[F, 256, 256, 3]",
        "noise float32[2, F, 4, 32, 32]",
        "conditioning float16[1, 9, F, 32, 32]",
        "moments float32[F, 2, 2, 4, 32, 32]",
    ],
    "unet": [
        "sample float16[b, 13, 16, 32, 32]",
        "timestep float32[1]",
        "encoder_hidden_states float16[b, 16, 50, 384]",
        "noise_pred float16[b, 4, 16, 32, 32]",
        "deep_features float16[b, 16, 32, 32, 32]",
    ],
    "unet_shallow": [
        "sample float16[b, 13, 16, 32, 32]",
        "timestep float32[1]",
        "encoder_hidden_states float16[b, 16, 50, 384]",
        "deep_features float16[b, 16, 32, 32, 32]",
        "noise_pred float16[b, 4, 16, 32, 32]",
    ],
    "step": [
        "noise_pred float16[b, 4, 16, 32, 32]",
        "latents float32[1, 4, 16, 32, 32]",
        "previous float32[1, 4, 16, 32, 32]",
        "conditioning float16[1, 9, 16, 32, 32]",
        "coefficients float32[5]",
        "guidance float32[1]",
        "kept float32[1, 5, 16, 32, 32]",
        "latents_out float32[1, 4, 16, 32, 32]",
        "previous_out float32[1, 4, 16, 32, 32]",
        "sample float16[b, 13, 16, 32, 32]",
    ],
    "vae_decoder": [
        "latents float32[1, 4, F, 32, 32]",
        "faces uint8[F, 256, 256, 3]",
        "faces_out uint8[F, 256, 256, 3]",
        "pixels float16[F, 256, 256, 3]",
        "nonfinite float32[F]",
    ],
}


@pytest.mark.parametrize("graph", CONTRACT)
def test_the_contract(bundle: Bundles, graph: str) -> None:
    opened = bundle("fp16", 256)
    entry = opened.graph(graph)
    assert [str(t.spec()) for t in (*entry.inputs, *entry.outputs)] == CONTRACT[graph]
    # The manifest says what the file itself says.
    model = onnx.load(str(opened.path / entry.file.path), load_external_data=False)
    names: dict[Any, str] = {TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16", TensorProto.UINT8: "uint8"}
    stated = []
    for value in (*model.graph.input, *model.graph.output):
        shape = ", ".join(d.dim_param or str(d.dim_value) for d in value.type.tensor_type.shape.dim)
        stated.append(f"{value.name} {names[value.type.tensor_type.elem_type]}[{shape}]")
    assert stated == CONTRACT[graph]


@pytest.mark.parametrize("graph", CONTRACT)
def test_fp16_is_strongly_typed(bundle: Bundles, graph: str) -> None:
    """Every weight of a Conv, MatMul or Gemm is fp16, except in the named islands."""
    opened = bundle("fp16", 256)
    model = onnx.load(str(opened.path / opened.graph(graph).file.path), load_external_data=False)
    weights = {w.name: w for w in model.graph.initializer}
    islands = [i.module.removeprefix("unet.") for i in FP32_ISLANDS if i.graph == graph]
    wide = [
        name
        for node in model.graph.node
        if node.op_type in ("Conv", "MatMul", "Gemm")
        for name in node.input
        if name in weights and weights[name].data_type != TensorProto.FLOAT16
    ]
    assert all(any(island in name for island in islands) for name in wide), wide
    assert bool(wide) == bool(islands)


@pytest.mark.parametrize("graph", CONTRACT)
def test_uint8_stays_at_the_edges(bundle: Bundles, graph: str) -> None:
    """TensorRT's rules: a uint8 input feeds a Cast, a uint8 output comes from one; and no metadata is left."""
    opened = bundle("fp16", 256)
    model = onnx.load(str(opened.path / opened.graph(graph).file.path), load_external_data=False)
    uint8 = {
        v.name for v in (*model.graph.input, *model.graph.output) if v.type.tensor_type.elem_type == TensorProto.UINT8
    }
    for node in model.graph.node:
        assert not node.metadata_props
        assert not node.doc_string
        if uint8 & {*node.input, *node.output}:
            assert node.op_type == "Cast", node.name


def test_weights_of_two_graphs_are_stored_once(bundle: Bundles) -> None:
    opened = bundle("fp16", 256)
    assert opened.graph("unet_shallow").data == ("onnx/unet.onnx.data",)
    assert not (opened.path / "onnx" / "unet_shallow.onnx.data").exists()


def test_every_file_is_in_the_manifest(bundle: Bundles) -> None:
    opened = bundle("fp32", 128)
    graphs = opened.manifest.graphs
    listed = {f.path: f.sha256 for name in graphs for form in FORMS for f in opened.files(name, form)}
    found = {str(p.relative_to(opened.path)) for p in opened.path.rglob("*") if p.is_file()} - {MANIFEST}
    assert set(listed) == found
    for path, digest in listed.items():
        assert sha256_of(opened.path / path) == digest
    assert set(opened.manifest.graphs) == {*GRAPHS, "face_detector", "face_landmarks"}
    for graph in GRAPHS:
        assert opened.graph(graph).parity


def test_infer_checks_its_feed(bundle: Bundles) -> None:
    with load_engine(bundle("fp32", 128), "step") as engine:
        with pytest.raises(EngineError, match="step takes noise_pred"):
            engine.infer({})
        size = (16, 16, 16)
        feed: dict[str, Any] = {
            "noise_pred": named_noise("n", (2, 4, *size), 0),
            "latents": named_noise("l", (1, 4, *size), 0),
            "previous": named_noise("p", (1, 4, *size), 0),
            "conditioning": named_noise("c", (1, 9, *size), 0),
            "coefficients": np.array([2, 3, 5, 7, 11], np.float32),
            "guidance": np.array([1.5], np.float32),
            "kept": named_noise("k", (1, 5, *size), 0),
        }
        kept, share = feed["kept"][:, :4], feed["kept"][:, 4:]
        with pytest.raises(EngineError, match=r"latents is \[4\]"):
            engine.infer(feed | {"latents": np.zeros(4)})
        for batch in (2, 1):
            noise = feed["noise_pred"][:batch]
            out = engine.infer(feed | {"noise_pred": noise})
            guided = noise[:1] + 1.5 * (noise[-1:] - noise[:1])
            latents = 2 * feed["latents"] + 3 * guided + 5 * feed["previous"]
            latents = (1 - share) * latents + share * kept
            assert np.abs(out["latents_out"] - latents).max() < 1e-4
            assert np.abs(out["previous_out"] - (7 * feed["latents"] + 11 * guided)).max() < 1e-4
            sample = np.concatenate([latents, feed["conditioning"]], axis=1).repeat(batch, axis=0)
            assert np.abs(out["sample"] - sample).max() < 1e-4


def test_a_flipped_byte_is_found(bundle: Bundles, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle("fp32", 128).path, copy)
    path = copy / "onnx" / "step.onnx"
    content = bytearray(path.read_bytes())
    content[100] ^= 8
    path.write_bytes(content)
    opened = Bundle.open(copy)
    load_engine(opened, "unet_shallow").close()
    with pytest.raises(IntegrityError, match=r"step\.onnx is not the file"):
        load_engine(opened, "step")


@pytest.mark.parametrize("command", ["inspect", "doctor"])
def test_commands_that_read_a_bundle(bundle: Bundles, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    opened = bundle("fp32", 128)
    with pytest.raises(SystemExit) as ended:
        main([command, str(opened.path), *(["--all"] if command == "inspect" else [])])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    wanted = {
        "inspect": ["encoder_hidden_states float32[b, 16, 50, 384]", "MatMul", opened.graph("unet").file.sha256],
        "doctor": ["intact", "runs here: yes", "onnxruntime"],
    }
    for text in wanted[command]:
        assert text in shown


def test_the_mask_and_the_time_are_in_the_graphs(bundle: Bundles) -> None:
    """The masked latents know nothing of the mouth; the mask channel is the released mask's every eighth pixel."""
    opened = bundle("fp32", 128)
    faces = np.full((1, 128, 128, 3), 90, np.uint8)
    other = faces.copy()
    other[0, 80:100, 50:80] = 250  # inside the painted area
    noise = np.zeros((2, 1, 4, 16, 16), np.float32)
    with load_engine(opened, "vae_encoder") as engine:
        a, b = (engine.infer({"faces": f, "noise": noise})["conditioning"] for f in (faces, other))
    assert np.array_equal(a[:, :5], b[:, :5])
    assert not np.array_equal(a[:, 5:], b[:, 5:])
    model = onnx.load(str(opened.path / opened.graph("vae_encoder").file.path))
    masks = [numpy_helper.to_array(w) for w in model.graph.initializer if list(w.dims)[-2:] == [128, 128]]
    assert masks
    assert np.abs(a[0, 0, 0] - masks[0].reshape(128, 128)[::8, ::8]).max() < 1e-6
