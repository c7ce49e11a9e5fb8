"""The gate: a good bundle is stamped, planted faults are caught and put down to the right graph, stamps become void."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from numpy.typing import NDArray

from examples.synthetic_clip import portrait_frames, speech, write_clip, write_wav
from lsx.bundle.bundle import Bundle
from lsx.bundle.manifest import MANIFEST, VerificationRecord
from lsx.cli.main import main
from lsx.core.noise import named_noise
from lsx.core.sampling import SamplingOptions
from lsx.core.tensors import Precision
from lsx.denoising import schedule
from lsx.engines.loading import check_record, load_engine, loaded_files, records_of
from lsx.engines.registry import EngineOptions
from lsx.errors import NotVerified
from lsx.models import reference
from lsx.models.checkpoint import Checkpoint
from lsx.models.checkpoint_files import CheckpointFiles
from lsx.runtime.audio_features import AudioTokens
from lsx.runtime.lipsync import LipSync
from lsx.verify.report import Report
from lsx.verify.verify import VerifyOptions, verify
from tests.planting import copy_of, edited, plant, without_kept
from tests.seeded_inputs import waveform

Bundles = Callable[[Precision, int], Bundle]
QUICK = SamplingOptions(steps=2, cache_interval=2)


@pytest.fixture
def own(bundle: Bundles, tmp_path: Path) -> Bundle:
    return copy_of(bundle("fp32", 64), tmp_path)


def checked(
    bundle: Bundle, checkpoint: Callable[[int], Path], progress: Callable[..., None] = lambda *_: None
) -> Report:
    return verify(
        bundle,
        VerifyOptions(backend="onnxruntime"),
        options=QUICK,
        engine=EngineOptions(checkpoint_dir=checkpoint(64)),
        progress=progress,
    )


def zeroed(weights: NDArray[np.generic]) -> NDArray[np.generic]:
    weights[3] = 0
    return weights


def test_a_good_bundle_is_stamped_until_it_changes(own: Bundle, checkpoint: Callable[[int], Path]) -> None:
    told: list[tuple[str, int | None, int | None]] = []
    report = checked(own, checkpoint, lambda *stage: told.append(stage))
    assert [(done, total) for _, done, total in told] == [(done, 6) for done in range(6)]
    assert told[-1][0] == "figures of all frames"
    assert report.passed
    assert report.clip is not None
    assert report.clip.mouth_ssim > 0.9999
    assert len(report.drift) == 3
    assert min(figures.cosine for figures in report.drift) > 0.999999
    assert {row.graph for row in report.graphs} == set(own.manifest.graphs) - {"face_detector", "face_landmarks"}
    opened = Bundle.open(own.path)
    [(record, coverage)] = records_of(opened, "onnxruntime")
    assert record.figures["unet_cosine"] > 0.99999
    assert coverage.smoke_check == "it was made on seeded inputs, not on a clip"
    with pytest.raises(
        NotVerified, match=r"smoke check \(it was made on seeded inputs.*lsx verify .*--clip VIDEO AUDIO"
    ):
        LipSync.open(opened, "onnxruntime", require_verified=True)

    changed = plant(opened, "unet", edited("unet.conv_in.bias", lambda a: a * 2))
    assert not records_of(changed, "onnxruntime")
    with pytest.raises(NotVerified, match="lsx verify"):
        LipSync.open(changed, "onnxruntime", require_verified=True)


def test_a_bundle_whose_step_keeps_no_latents(own: Bundle, checkpoint: Callable[[int], Path]) -> None:
    """As lsx 0.2 exported it: verified, also where a fault is looked for graph by graph, and run by PyTorch."""
    old = without_kept(own, checkpoint(64))
    assert "kept" not in [tensor.name for tensor in old.graph("step").inputs]
    report = checked(old, checkpoint)
    assert report.passed
    assert {row.graph for row in report.graphs} >= {"step"}
    size = (1, 4, old.model.frames, old.model.latent, old.model.latent)
    feed = {
        "noise_pred": named_noise("n", size, 0).repeat(2, axis=0),
        "latents": named_noise("l", size, 0),
        "previous": named_noise("p", size, 0),
        "conditioning": named_noise("c", (1, 9, *size[2:]), 0),
        "coefficients": np.array([2, 3, 5, 7, 11], np.float32),
        "guidance": np.array([1.5], np.float32),
    }
    with load_engine(old, "step") as onnx, load_engine(old, "step", "torch", checkpoint_dir=checkpoint(64)) as torch:
        wanted, made = onnx.infer(feed), torch.infer(feed)
    assert all(np.abs(made[name] - wanted[name]).max() < 1e-4 for name in wanted)
    assert (
        checked(plant(old, "vae_decoder", edited("mask", lambda a: 1 - a)), checkpoint).failing_graph == "vae_decoder"
    )


def test_a_record_covers_its_settings_and_no_others(
    own: Bundle, checkpoint: Callable[[int], Path], tmp_path: Path
) -> None:
    """Two chunks of a clip, 2 steps: exactly that runs where it is required, in Python and on the command line."""
    from lsx.cli.main import main

    clip = write_clip(tmp_path / "clip.mp4", portrait_frames(33), crf=1), write_wav(tmp_path / "s.wav", speech(1.3))
    for chunks, full in ((1, False), (3, True), (1, True)):
        report = verify(
            own,
            VerifyOptions(backend="onnxruntime", clip=clip, max_chunks=chunks),
            options=QUICK,
            engine=EngineOptions(checkpoint_dir=checkpoint(64)),
        )
        assert report.passed
        assert report.coverage is not None
        assert (report.coverage.smoke_check is None) is (chunks > 1)
        covered = [coverage.smoke_check is None for _, coverage in records_of(own, "onnxruntime")]
        assert covered == [full]  # a smoke check never takes a verification's place
    arguments = ["run", str(own.path), *map(str, clip), "-o", str(tmp_path / "out.mp4"), "--require-verified"]
    for wrong in (["--steps", "2", "--guidance", "1"], ["--steps", "4"]):
        with pytest.raises(SystemExit, match="1"):
            main([*arguments, *wrong, "--cache-interval", "2"])
    assert not (tmp_path / "out.mp4").exists()
    with pytest.raises(SystemExit, match="0"):  # the scale of guidance is an input of the graphs
        main([*arguments, "--steps", "2", "--cache-interval", "2", "--guidance", "2.5"])
    with LipSync.open(own, "onnxruntime", require_verified=True) as lipsync:
        lipsync.warm_up(QUICK)
        for other in (
            SamplingOptions(steps=2, cache_interval=None),
            SamplingOptions(steps=3, cache_interval=2),
            SamplingOptions(steps=2, cache_interval=2, guidance=1.0),
            SamplingOptions(steps=2, cache_interval=2, sampler="dpm++2m"),
        ):
            with pytest.raises(NotVerified, match=r"verified: .*Verify it: lsx verify .* --steps"):
                lipsync.warm_up(other)
            with pytest.raises(NotVerified):
                lipsync.stream([], [], None, other)
    with pytest.raises(NotVerified, match="CPUExecutionProvider"):
        check_record(own, "onnxruntime", required=True, provider="cuda")


LAYER = "unet.up_blocks.1.resnets.1.conv2"


@pytest.mark.parametrize(
    ("graph", "change", "layer"),
    [
        ("unet", edited(f"{LAYER}.weight", zeroed), LAYER),
        ("vae_encoder", edited("mask", lambda a: 1 - a), None),
        ("vae_decoder", edited("mask", lambda a: 1 - a), None),
    ],
    ids=["channel zeroed", "mask inverted", "mask inverted in the decoder"],
)
def test_a_changed_constant(
    own: Bundle,
    checkpoint: Callable[[int], Path],
    graph: str,
    change: Callable[[ir.Model], None],
    layer: str | None,
) -> None:
    report = checked(plant(own, graph, change), checkpoint)
    assert not report.passed
    assert report.failing_graph == graph
    assert [row.component for row in report.bisection if row.failed] == [graph]
    assert layer is None or report.layers[0].name == layer
    assert not Bundle.open(own.path).manifest.records


def swap_outputs(model: ir.Model) -> None:
    """latents_out and previous_out, which have one shape."""
    first, second, *rest = model.graph.outputs
    first.name, second.name = "swapping", first.name
    first.name = "previous_out"
    model.graph.outputs[:] = [second, first, *rest]


def swap_halves(model: ir.Model) -> None:
    """The unconditional and the conditional half of the noise."""
    halves = [node.outputs[0] for node in model.graph if node.op_type == "Slice"][:2]
    uses = [list(half.uses()) for half in halves]
    for used, other in zip(uses, halves[::-1], strict=True):
        for use in used:
            use.node.replace_input_with(use.idx, other)


@pytest.mark.parametrize("change", [swap_outputs, swap_halves])
def test_a_wrong_step(own: Bundle, checkpoint: Callable[[int], Path], change: Callable[[ir.Model], None]) -> None:
    report = checked(plant(own, "step", change), checkpoint)
    assert report.failing_graph == "step"
    assert [row.component for row in report.bisection if row.failed] == ["step"]


def test_a_coefficient_off_by_one_step(
    own: Bundle, checkpoint: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = schedule.ddim_coefficients
    monkeypatch.setattr(schedule, "ddim_coefficients", lambda *given: np.roll(right(*given), 1, axis=0))
    report = checked(own, checkpoint)
    assert report.failing_graph == "runtime: schedule and loop"


def test_sound_shifted_by_a_frame(
    own: Bundle, checkpoint: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = AudioTokens.tokens
    monkeypatch.setattr(AudioTokens, "tokens", lambda self, frames: right(self, [f + 1 for f in frames]))
    report = checked(own, checkpoint)
    assert report.failing_graph == "runtime: audio tokens"


def test_the_references_sound_is_the_runtimes(bundle: Bundles, checkpoint: Callable[[int], Path]) -> None:
    """Two computations of the tokens, by PyTorch and transformers, and by NumPy: over a segment's end as well."""
    samples = waveform(495000, 0)
    frames = range(742, 758)
    loaded = Checkpoint(CheckpointFiles.in_folder(checkpoint(64)))
    wave = torch.from_numpy(samples.astype(np.float32) / 32768)
    expected = reference.audio_tokens(loaded.audio_encoder(), wave, frames, loaded.spec.audio_window)
    opened = bundle("fp32", 64)
    with load_engine(opened, "audio_encoder") as engine:
        found = AudioTokens(engine, samples, opened.model).tokens(frames)
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-4)


def test_a_record_names_the_fallbacks_files(own: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    """Calls that overflow are done again in the fallback: another fallback is another bundle to a record."""
    shutil.copytree(own.path, own.path.parent / "wider")
    (own.path.parent / "wider").rename(own.path / "fallback")
    content = json.loads((own.path / MANIFEST).read_text())
    (own.path / MANIFEST).write_text(json.dumps(content | {"fallback": "fallback"}))
    opened = Bundle.open(own.path)
    files = loaded_files(opened, "onnxruntime")
    inside = loaded_files(Bundle.open(own.path / "fallback"), "onnxruntime")
    assert files == inside | {f"fallback/{path}": h for path, h in inside.items()}
    opened.add_record(
        VerificationRecord(
            backend="onnxruntime",
            lsx_version="0.1.0",
            created="2026-01-01T00:00:00+00:00",
            engine="onnxruntime 1, CPUExecutionProvider",
            files=files,
            checkpoint=dict(opened.manifest.model.checkpoint),
            inputs={"clip.mp4": "0" * 64},
            options={"steps": "20", "guidance": "1.5", "cache_interval": "3", "frames": "32"},
            thresholds={},
            figures={},
        )
    )
    assert len(records_of(Bundle.open(own.path), "onnxruntime")) == 1
    with pytest.raises(SystemExit):
        main(["inspect", str(own.path)])
    assert "; holds" in capsys.readouterr().out
    wider = json.loads((own.path / "fallback" / MANIFEST).read_text())
    wider["graphs"]["unet"]["file"]["sha256"] = "0" * 64
    wider["graphs"]["unet"]["onnxruntime"] = None
    (own.path / "fallback" / MANIFEST).write_text(json.dumps(wider))
    assert not records_of(Bundle.open(own.path), "onnxruntime")
