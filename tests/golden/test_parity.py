"""The export's gate: sound checkpoints of any seed pass, planted faults do not; norms are right on masked frames."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import onnx
import pytest
import torch
from torch import nn

from examples.synthetic_clip import portrait_frames
from lsx.bundle.manifest import GraphEntry
from lsx.core.noise import named_noise
from lsx.core.tensors import FloatPrecision, TensorSpec
from lsx.engines.onnxruntime import engine_from_onnx
from lsx.errors import ExportError, ParityError
from lsx.export import graph_exporter, parity
from lsx.export.exporter import export_bundle
from lsx.export.graph_exporter import GraphExporter
from lsx.export.onnx_file import save_model
from lsx.export.onnxruntime_form import to_onnxruntime_form
from lsx.export.options import ExportOptions
from lsx.export.trace_cache import TraceCache
from lsx.export.tracing import trace
from lsx.graphs import modules
from lsx.graphs.graph_specs import GRAPHS
from lsx.graphs.precision import to_precision
from lsx.models.checkpoint import Checkpoint
from lsx.models.checkpoint_files import CheckpointFiles
from lsx.models.random_checkpoint import random_checkpoint

SEEDS = (11, 12, 13)
CUDA_FORM_ON_A_CPU = 12  # its CPU kernel sums in float32 where factors are not broadcast


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Checkpoint]:
    """Of few layers, which are of every kind; `small` has the released topology."""
    folder = tmp_path_factory.mktemp("seeds")

    def make(seed: int, size: str = "minimal") -> Checkpoint:
        path = folder / f"{size}-{seed}"
        if not path.exists():
            random_checkpoint(path, seed=seed, size=size, resolution=64)
        return Checkpoint(CheckpointFiles.in_folder(path))

    return make


def _exported(checkpoint: Checkpoint, folder: Path, graph: str, precision: FloatPrecision) -> GraphEntry:
    (folder / "onnx").mkdir(parents=True, exist_ok=True)
    return GraphExporter(checkpoint, folder, precision, None).graph(GRAPHS[graph], lambda _: None)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("seed", SEEDS)
def test_sound_graphs_of_other_seeds_pass(
    checkpoints: Callable[..., Checkpoint], tmp_path: Path, seed: int, precision: FloatPrecision
) -> None:
    for graph in ("vae_encoder", "unet_shallow", "vae_decoder"):
        entry = _exported(checkpoints(seed), tmp_path / graph, graph, precision)
        # Room on both sides: the limits are neither touched by a sound graph nor out of sight of it.
        for found in entry.parity:
            assert found.tolerance_mean is not None
            assert found.mean_error <= found.tolerance_mean / 4


def _modules(module: nn.Module, kind: type[nn.Module]) -> list[Any]:
    return [part for part in module.modules() if isinstance(part, kind)]


def _transpose(module: nn.Module) -> None:
    square = [p for p in _modules(module, nn.Linear) if p.in_features == p.out_features]
    square[-1].weight.data = square[-1].weight.data.T.contiguous()


def _epsilon(module: nn.Module) -> None:
    _modules(module, nn.GroupNorm)[0].eps *= 10


def _bias(module: nn.Module) -> None:
    _modules(module, nn.Conv2d)[1].bias.data.zero_()


def _mask(module: nn.Module) -> None:
    module.mask = 1 - torch.as_tensor(module.mask)


def _head(module: nn.Module) -> None:
    output = next(p for n, p in module.named_parameters() if n.endswith("to_out.0.weight"))
    output.data[:, : output.shape[1] // 4] = 0


def _eight_bits(module: nn.Module) -> None:
    for parameter in module.parameters():
        if parameter.ndim > 1:
            step = parameter.data.abs().max() / 127
            parameter.data = (parameter.data / step).round() * step


def _positions(module: nn.Module) -> None:
    name, table = next((n, t) for n, t in module.state_dict().items() if "positional_embedding" in n)
    owner, _, leaf = name.rpartition(".")
    getattr(module.get_submodule(owner), leaf).data.copy_(table.roll(1, 0))


FAULTS: dict[str, tuple[str, Callable[[nn.Module], None]]] = {
    "transposed weight": ("unet_shallow", _transpose),
    "wrong epsilon": ("unet_shallow", _epsilon),
    "missing bias": ("vae_decoder", _bias),
    "mask inverted": ("vae_encoder", _mask),
    "wrong latent scale": ("vae_encoder", lambda _: None),
    "a head dropped": ("unet_shallow", _head),
    "weights of 8 bits": ("vae_decoder", _eight_bits),
    "audio off by one": ("audio_encoder", _positions),
}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("seed", SEEDS)
def test_planted_faults_are_refused(
    checkpoints: Callable[..., Checkpoint],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    precision: FloatPrecision,
) -> None:
    """Each is planted between the reference's run and the trace, where a mistake of the export would be."""
    sound = to_precision
    for name, (graph, plant) in FAULTS.items():

        def planted(
            module: nn.Module, of: str, to: FloatPrecision, plant: Callable[[nn.Module], None] = plant, name: str = name
        ) -> nn.Module:
            plant(module)
            if name == "wrong latent scale":
                patched.setattr(modules, "LATENT_SCALE", 0.18)
                patched.setattr(TraceCache, "get", lambda *_: None)  # of another source, a trace has another key
                patched.setattr(TraceCache, "put", lambda *_: None)
            return sound(module, of, to)

        with monkeypatch.context() as patched:
            patched.setattr(graph_exporter, "to_precision", planted)
            with pytest.raises(ExportError) as caught:
                _exported(checkpoints(seed), tmp_path / name, graph, precision)
        assert isinstance(caught.value, ParityError), name
        assert graph in str(caught.value)


def test_loud_activations_are_accepted(checkpoints: Callable[..., Checkpoint], tmp_path: Path) -> None:
    """Weights multiplied until the latents' spread is in the hundreds: the limits go along."""
    spec = GRAPHS["vae_encoder"]

    def loud(checkpoint: Checkpoint) -> modules.GraphModule:
        module = spec.build(checkpoint)
        for name in ("encoder.conv_in", "encoder.conv_out"):
            module.get_submodule(name).get_parameter("weight").data *= 1000
        module.get_submodule("quant_conv").get_parameter("weight").data[:4] *= 10
        return module

    (tmp_path / "onnx").mkdir()
    exporter = GraphExporter(checkpoints(11), tmp_path, "fp32", None)
    entry = exporter.graph(replace(spec, build=loud), lambda _: None)
    assert (entry.parity[0].spread or 0) > 1000 * 0.18


def test_a_refusal_says_what_and_the_report_holds_all(
    checkpoints: Callable[..., Checkpoint], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = to_precision

    def planted(module: nn.Module, of: str, to: FloatPrecision) -> nn.Module:
        if of == "vae_encoder":
            _mask(module)
        return sound(module, of, to)

    monkeypatch.setattr(graph_exporter, "to_precision", planted)
    report = tmp_path / "parity.json"
    with pytest.raises(ParityError, match=r"vae_encoder: output conditioning .*mean error .*limit.*--parity-report"):
        export_bundle(checkpoints(11), tmp_path / "bundle", ExportOptions(precision="fp32", parity_report=report))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parity.json"]
    figures = json.loads(report.read_text())["precisions"]["fp32"]
    assert set(figures) == {"audio_encoder", "vae_encoder"}  # those before it too
    assert figures["vae_encoder"][0]["mean_error"] > figures["vae_encoder"][0]["tolerance_mean"]


def test_measures_equal_numpys() -> None:
    expected = named_noise("x", (100, 300), 0) * 7
    result = expected + named_noise("e", expected.shape, 1) * np.float32(0.01)
    limit = parity.Tolerance(mean=1, high=1, gross=1, cosine=0)
    entry = parity.measure("out", result, expected, limit, method="m")
    errors = np.abs(result.astype(float) - expected)
    assert entry.mean_error == pytest.approx(errors.mean())
    assert entry.high_error == pytest.approx(np.quantile(errors, 0.9999, method="inverted_cdf"), rel=0.02)
    assert entry.spread == pytest.approx(expected.std(), rel=1e-5)
    assert entry.psnr == pytest.approx(20 * np.log10(np.ptp(expected) / np.sqrt((errors**2).mean())))
    loose = parity.tolerance_of("fp16", "float32", deep=True)
    broken = result.copy()
    broken[0, 0] = np.nan
    for wrong in (broken, np.roll(expected, 1)):
        with pytest.raises(ParityError, match="g: output out differs"):
            parity.judge(
                "g",
                [parity.measure("out", wrong, expected, loose, method="m")],
            )


@pytest.mark.parametrize("provider", ["cpu", "cuda"])
@pytest.mark.parametrize("graph", ["vae_encoder", "vae_decoder"])
def test_norms_on_masked_frames_of_a_clip(
    checkpoints: Callable[..., Checkpoint], tmp_path: Path, graph: str, provider: Literal["cpu", "cuda"]
) -> None:
    """Against a float64 run of the reference: at most three times as far as PyTorch in float32 is.

    The CUDA provider's form is run on the CPU here, whose kernel sums other than CUDA's: what is tested is the form.
    """
    checkpoint = checkpoints(12)
    faces = np.stack([cv2.resize(frame, (64, 64)) for frame in portrait_frames(4)])
    latents = named_noise("l", (1, 4, 4, 8, 8), 0)
    feed = {"faces": faces, "noise": named_noise("n", (2, 4, 4, 8, 8), 0)} if graph == "vae_encoder" else {}
    feed = feed or {"latents": latents, "faces": faces}
    module = GRAPHS[graph].build(checkpoint).eval().requires_grad_(False)
    inside = module.get_submodule("encoder" if graph == "vae_encoder" else "decoder")

    def reference(dtype: torch.dtype) -> np.ndarray[Any, Any]:
        """The network in `dtype`, on what it sees in the graph."""
        module.to(dtype)
        given = {
            k: torch.from_numpy(v).to(dtype) if v.dtype != np.uint8 else torch.from_numpy(v) for k, v in feed.items()
        }
        seen: list[torch.Tensor] = []
        handle = inside.register_forward_hook(lambda _m, a, _o: seen.append(a[0]))
        with torch.inference_mode():
            module(*given.values())
            handle.remove()
            return np.asarray(inside(seen[0].to(dtype)).double().numpy())

    exact, single = reference(torch.float64), reference(torch.float32)
    module.to(torch.float32)
    # The network alone as a graph, so that what is compared is not rounded on the way out.
    seen: list[torch.Tensor] = []
    handle = inside.register_forward_hook(lambda _m, a, _o: seen.append(a[0]))
    with torch.inference_mode():
        module(*(torch.from_numpy(v) for v in feed.values()))
    handle.remove()
    given = seen[0].clone()
    model = trace(inside, [given], ["x"], ("y",))
    assert to_onnxruntime_form(model, provider)
    save_model(model, tmp_path / "network.onnx")
    specs = [TensorSpec(name=n, dtype="float32", shape=s) for n, s in (("x", tuple(given.shape)), ("y", exact.shape))]
    with engine_from_onnx(tmp_path / "network.onnx", graph, specs[:1], specs[1:]) as engine:
        made = engine.infer({"x": given.numpy()})["y"].astype(float)
    ours, theirs = np.abs(made - exact), np.abs(single - exact)
    allowed = 3 if provider == "cpu" else CUDA_FORM_ON_A_CPU
    assert ours.max() <= allowed * theirs.max()
    assert ours.mean() <= allowed * theirs.mean()


@pytest.mark.parametrize(("seed", "size"), [(11, "small"), (12, "minimal"), (13, "minimal")])
@pytest.mark.parametrize("graph", ["unet", "unet_shallow", "audio_encoder"])
def test_unet_and_audio_encoder_against_float64(
    checkpoints: Callable[..., Checkpoint], tmp_path: Path, graph: str, seed: int, size: str
) -> None:
    """The U-Net on latents of masked frames of a clip, the audio encoder on a spectrogram: as above."""
    checkpoint = checkpoints(seed, size)
    spec = GRAPHS[graph]
    module = spec.build(checkpoint).eval().requires_grad_(False)
    feed = spec.example_inputs(checkpoint.spec, module, spec.parity_lengths[-1])
    if "sample" in feed:
        encoder = GRAPHS["vae_encoder"].build(checkpoint).eval()
        faces = np.stack([cv2.resize(frame, (64, 64)) for frame in portrait_frames(16)])
        noise = named_noise("n", (2, 16, 4, 8, 8), 0)
        with torch.inference_mode():
            made, _ = encoder(torch.from_numpy(faces), torch.from_numpy(noise))
        sample = feed["sample"].copy()
        sample[:, 4:] = made.numpy()
        feed["sample"] = sample

    def reference(dtype: torch.dtype) -> list[np.ndarray[Any, Any]]:
        module.to(dtype)
        given = [torch.from_numpy(array).to(dtype) for array in feed.values()]
        with torch.inference_mode():
            result = module(*given)
        return [np.asarray(r.double().numpy()) for r in (result if isinstance(result, tuple) else (result,))]

    exact = reference(torch.float64)
    single = reference(torch.float32)
    assert any(np.abs(e - s).max() > 0 for e, s in zip(exact, single, strict=True))
    model = trace(module, [torch.from_numpy(a) for a in feed.values()], list(feed), spec.outputs)
    to_onnxruntime_form(model)
    save_model(model, tmp_path / "network.onnx")
    inputs = [TensorSpec(name=n, dtype="float32", shape=a.shape) for n, a in feed.items()]
    outputs = [TensorSpec(name=n, dtype="float32", shape=a.shape) for n, a in zip(spec.outputs, exact, strict=True)]
    with engine_from_onnx(tmp_path / "network.onnx", graph, inputs, outputs) as engine:
        made_here = engine.infer(feed)
    for name, e, s in zip(spec.outputs, exact, single, strict=True):
        ours, theirs = np.abs(made_here[name] - e), np.abs(s - e)
        assert ours.max() <= 3 * theirs.max()
        assert ours.mean() <= 3 * theirs.mean()


def test_tensorrt_keeps_its_norms_and_onnxruntime_has_its_own_form(
    checkpoints: Callable[..., Checkpoint], tmp_path: Path
) -> None:
    entry = _exported(checkpoints(11), tmp_path, "unet_shallow", "fp16")
    assert entry.onnxruntime is not None
    assert entry.onnxruntime_cuda is not None
    kinds = [
        {node.op_type for node in onnx.load(str(tmp_path / file.path), load_external_data=False).graph.node}
        for file in (entry.file, entry.onnxruntime, entry.onnxruntime_cuda)
    ]
    assert {"GroupNormalization", "Attention"} <= kinds[0]
    assert not {"GroupNormalization", "Attention"} & kinds[1]
    for own in kinds[1:]:
        assert not {"GroupNormalization", "Attention"} & own
        assert {"LayerNormalization", "MultiHeadAttention"} <= own
