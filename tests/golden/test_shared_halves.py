"""What both halves of guidance have in common is computed once, and not a number changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lsx.core.graph_names import LOOP_GRAPHS
from lsx.core.model_spec import ModelSpec
from lsx.core.noise import named_noise
from lsx.core.sampling import SamplingOptions
from lsx.denoising.chunk_program import loop_program
from lsx.denoising.chunk_runner import audio_batch
from lsx.denoising.executor import HostExecutor, io_of
from lsx.engines.loading import load_engine
from lsx.errors import ParityError, UsageError
from lsx.export.exporter import export_bundle
from lsx.export.graph_exporter import GraphExporter
from lsx.export.options import ExportOptions
from lsx.graphs.graph_specs import GRAPHS, in_halves
from lsx.graphs.modules import SHARED_HALVES, GuidedGraph, UNetGraph
from lsx.models.attention import SpatialBlock
from lsx.models.checkpoint import Checkpoint
from lsx.models.checkpoint_files import CheckpointFiles
from lsx.models.random_checkpoint import random_checkpoint
from lsx.models.unet import UNet3D
from lsx.models.unet_config import UNetConfig
from tests.golden.test_tensorrt_form import MODEL, NARROW, narrow_module

LEVELS = {"sound at once": (True, False), "sound below": (False, True)}
SEEDS = range(20, 30)


def _module(graph: str, seed: int, levels: tuple[bool, ...] = (True, False)) -> GuidedGraph:
    return narrow_module(graph, seed, replace(NARROW, attention_levels=levels))


def _outputs(graph: str, module: GuidedGraph, batch: int) -> tuple[Tensor, ...]:
    feed = in_halves(GRAPHS[graph].example_inputs(MODEL, module, batch))
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
        module.share_halves(MODEL.frames)
        for one, other in zip(plain, _outputs(graph, module, batch), strict=True):
            # Another batch may take another kernel, which sums in another order: float32's rounding and no more.
            torch.testing.assert_close(other, one, rtol=0, atol=2e-5 * float(one.std()))


def test_a_nan_in_the_sound_is_not_taken_for_silence() -> None:
    module = _module("unet", 1)
    module.share_halves(MODEL.frames)
    inputs = in_halves(GRAPHS["unet"].example_inputs(MODEL, module, 2))
    feed = [torch.from_numpy(array) for array in inputs.values()]
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


def _exported(checkpoint: Checkpoint, folder: Path, *, share_halves: bool) -> dict[str, str]:
    """The metadata of its `unet`, exported."""
    (folder / "onnx").mkdir(parents=True)
    exporter = GraphExporter(checkpoint, folder, "fp32", None, share_halves=share_halves)
    entry = exporter.graph(GRAPHS["unet"], lambda _: None)
    model = onnx.load(str(folder / entry.file.path), load_external_data=False)
    return {prop.key: prop.value for prop in model.metadata_props}


def test_the_gate_sees_both_halves(checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A half without sound that were given nothing instead of the output's bias is refused."""
    assert SHARED_HALVES in _exported(checkpoint, tmp_path / "sound", share_halves=True)
    assert SHARED_HALVES not in _exported(checkpoint, tmp_path / "plain", share_halves=False)

    def without_bias(self: SpatialBlock, hidden: Tensor, audio: Tensor) -> Tensor:
        silent = audio.abs().amax((1, 2), keepdim=True) == 0
        heard = self.attn2(self.norm2(hidden[-self.half_frames :]), audio[-self.half_frames :])
        answer = torch.where(silent.unflatten(0, (-1, self.half_frames)), torch.zeros(()), heard[None])
        joined: Tensor = (hidden.unflatten(0, (-1, self.half_frames)) + answer).flatten(0, 1)
        return joined

    monkeypatch.setenv("LSX_CACHE", str(tmp_path / "no traces of before"))
    monkeypatch.setattr(SpatialBlock, "_hear_once", without_bias)
    with pytest.raises(ParityError, match="noise_pred"):
        _exported(checkpoint, tmp_path / "unsound", share_halves=True)


def test_a_student_has_no_halves(checkpoint: Checkpoint, tmp_path: Path) -> None:
    sampled = tmp_path / "sampling.json"
    sampled.touch()
    student = Checkpoint(replace(checkpoint.files, sampling=sampled))
    with pytest.raises(UsageError, match="a student has none"):
        export_bundle(student, tmp_path / "student", ExportOptions(precision="fp32", share_halves=True))


def test_a_bundle_gives_the_same_latents(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Through the loop, with DeepCache, and without guidance."""
    made: dict[tuple[float, int | None], NDArray[np.float32]] = {}
    for share in (False, True):
        opened = export_bundle(checkpoint, tmp_path / str(share), ExportOptions(precision="fp32", share_halves=share))
        engines = {graph: load_engine(opened, graph) for graph in LOOP_GRAPHS}
        for guidance, interval in ((1.5, None), (1.5, 2), (1.0, None)):
            options = SamplingOptions(steps=3, guidance=guidance, cache_interval=interval)
            executor = HostExecutor(loop_program(opened.model, io_of(engines), options), engines)
            size = (opened.model.frames, opened.model.latent, opened.model.latent)
            feed = {
                "latents": named_noise("latents", (1, 4, *size), 0),
                "conditioning": named_noise("conditioning", (1, 9, *size), 0),
                "encoder_hidden_states": audio_batch(
                    named_noise("audio", (opened.model.frames, opened.model.tokens, opened.model.audio_dim), 0),
                    options.guidance_batch,
                ),
                "guidance": np.array([guidance], np.float32),
            }
            result = executor.submit(feed).result(None).arrays["latents_out"].copy()
            executor.close()
            if share:
                np.testing.assert_allclose(result, made[guidance, interval], atol=2e-4 * result.std(), rtol=0)
            made[guidance, interval] = result
        for engine in engines.values():
            engine.close()
