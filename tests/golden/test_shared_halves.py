"""What both halves of guidance have in common is computed once, and not a number changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lsx.core.model_spec import ModelSpec
from lsx.errors import ParityError
from lsx.export.graph_exporter import GraphExporter
from lsx.graphs.graph_specs import GRAPHS
from lsx.graphs.modules import SHARED_HALVES, GraphModule, UNetGraph, UNetShallowGraph
from lsx.models.attention import SpatialBlock
from lsx.models.checkpoint import Checkpoint
from lsx.models.checkpoint_files import CheckpointFiles
from lsx.models.random_checkpoint import random_checkpoint, seeded_weight
from lsx.models.unet import UNet3D
from lsx.models.unet_config import UNetConfig

MODEL = ModelSpec(version="random", resolution=64)
LEVELS = {"sound at once": (True, False), "sound below": (False, True)}
SEEDS = range(20, 30)


def _module(graph: str, seed: int, levels: tuple[bool, ...] = (True, False)) -> GraphModule:
    config = UNetConfig(block_out_channels=(32, 64), attention_levels=levels, heads=4, norm_groups=8)
    unet = UNet3D(config).eval().requires_grad_(False)
    for name, parameter in unet.named_parameters():
        parameter.copy_(torch.from_numpy(seeded_weight(name, tuple(parameter.shape), seed)))
    return UNetGraph(unet) if graph == "unet" else UNetShallowGraph(unet)


def _outputs(graph: str, module: GraphModule, batch: int) -> tuple[Tensor, ...]:
    feed = GRAPHS[graph].example_inputs(MODEL, module, batch)
    with torch.inference_mode():
        made = module(*(torch.from_numpy(array) for array in feed.values()))
    return made if isinstance(made, tuple) else (made,)


@pytest.mark.parametrize("graph", ["unet", "unet_shallow"])
@pytest.mark.parametrize("levels", LEVELS.values(), ids=LEVELS)
@pytest.mark.parametrize("batch", [1, 2])
def test_not_a_number_changes(graph: str, levels: tuple[bool, ...], batch: int) -> None:
    for seed in SEEDS:
        module = _module(graph, seed, levels)
        plain = _outputs(graph, module, batch)
        assert module.share_halves(MODEL.frames)
        for one, other in zip(plain, _outputs(graph, module, batch), strict=True):
            # Another batch may take another kernel, which sums in another order: float32's rounding and no more.
            torch.testing.assert_close(other, one, rtol=0, atol=2e-5 * float(one.std()))


def test_a_nan_in_the_sound_is_not_taken_for_silence() -> None:
    module = _module("unet", 1)
    module.share_halves(MODEL.frames)
    feed = [torch.from_numpy(array) for array in GRAPHS["unet"].example_inputs(MODEL, module, 2).values()]
    feed[2][-1, 3, 5] = torch.nan
    assert module(*feed)[0][-1].isnan().any()


def test_what_it_saves_at_full_width() -> None:
    """By PyTorch's own count, at 256 px: 2.8 % of the guided U-Net, which docs/decisions.md names."""
    model = ModelSpec(version="random", resolution=256)
    with torch.device("meta"):
        module = UNetGraph(UNet3D(UNetConfig()).eval())
        half = (model.frames, model.latent, model.latent)
        feed = [
            torch.empty(2, 13, *half),
            torch.empty(1),
            torch.empty(2, model.frames, model.tokens, model.audio_dim),
        ]
    counts = []
    for share in (False, True):
        if share:
            module.share_halves(model.frames)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module(*feed)
        counts.append(counter.get_total_flops())
    assert 1 - counts[1] / counts[0] == pytest.approx(0.028, abs=0.002)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("halves") / "checkpoint"
    random_checkpoint(folder, seed=31, size="minimal", resolution=64)
    return Checkpoint(CheckpointFiles.in_folder(folder))


def _exported(checkpoint: Checkpoint, folder: Path) -> dict[str, str]:
    """The metadata of its `unet`, exported."""
    (folder / "onnx").mkdir(parents=True)
    entry = GraphExporter(checkpoint, folder, "fp32", None).graph(GRAPHS["unet"], lambda _: None)
    model = onnx.load(str(folder / entry.file.path), load_external_data=False)
    return {prop.key: prop.value for prop in model.metadata_props}


def test_the_gate_sees_both_halves(checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A half without sound that were given nothing instead of the output's bias is refused."""
    assert SHARED_HALVES in _exported(checkpoint, tmp_path / "sound")

    def without_bias(self: SpatialBlock, hidden: Tensor, audio: Tensor) -> Tensor:
        silent = audio.abs().amax((1, 2), keepdim=True) == 0
        heard = self.attn2(self.norm2(hidden[-self.half_frames :]), audio[-self.half_frames :])
        answer = torch.where(silent.unflatten(0, (-1, self.half_frames)), torch.zeros(()), heard[None])
        joined: Tensor = (hidden.unflatten(0, (-1, self.half_frames)) + answer).flatten(0, 1)
        return joined

    monkeypatch.setenv("LSX_CACHE", str(tmp_path / "no traces of before"))
    monkeypatch.setattr(SpatialBlock, "_hear_once", without_bias)
    with pytest.raises(ParityError, match="noise_pred"):
        _exported(checkpoint, tmp_path / "unsound")


def test_a_student_has_no_halves(checkpoint: Checkpoint, tmp_path: Path) -> None:
    sampled = tmp_path / "sampling.json"
    sampled.touch()
    student = Checkpoint(replace(checkpoint.files, sampling=sampled))
    assert SHARED_HALVES not in _exported(student, tmp_path / "student")
