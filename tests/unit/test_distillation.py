"""`lsx distill`: what a student's target is, against other formulas, and the trainings one after another."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from lsx.core.noise import named_noise
from lsx.core.sampling import SamplingOptions
from lsx.denoising.schedule import schedule, timesteps
from lsx.errors import Cancelled, UsageError
from lsx.models.checkpoint import Checkpoint, read_tensors
from lsx.models.checkpoint_files import CheckpointFiles
from lsx.models.reference import scheduler
from lsx.training.consistency import ConsistencyStage
from lsx.training.distill import distill
from lsx.training.distill_options import DistillOptions
from lsx.training.distill_task import DistillTask, TeacherRecord
from lsx.training.distillation import DistillationStage, halving_stages
from lsx.training.shards import DataSet
from lsx.training.train import Callbacks
from lsx.training.unet_task import UNetSources
from tests.training_data import tiny_data

ALPHAS = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
SHAPE = (1, 4, 16, 3, 3)
STAGE: dict[str, Any] = {
    "data": {"resolution": 64},
    "ckpt": {"save_ckpt_steps": 1},
    "run": {
        "pixel_space_supervise": False,
        "max_train_steps": 2,
        "validation_steps": 100,
        "mixed_precision": "no",
        "seed": 3,
    },
    "optimizer": {"lr": 1e-3},
}


def curved(noisy: Tensor, times: Tensor, audio: Tensor) -> Tensor:
    """A teacher of whom two steps are not one."""
    return torch.tanh(noisy * (1 + times.view(-1, 1, 1, 1, 1) / 500)) + 0.1 * audio


@pytest.mark.parametrize("steps", [1, 2, 4])  # with 16, diffusers takes 62 for the half of 125
def test_a_students_step_lands_where_two_of_its_teacher_do(steps: int) -> None:
    """Against diffusers' DDIM of twice the steps, through the table that lsx samples with."""
    stage, audio = DistillationStage(steps), torch.tensor(0.5)
    theirs = scheduler("ddim-trailing")
    theirs.set_timesteps(2 * steps)
    for place, step in enumerate(schedule(SamplingOptions(steps=steps, sampler="ddim-trailing"))):
        noisy = torch.from_numpy(named_noise(f"latents{place}", SHAPE, 0))
        places = torch.tensor([place])
        assert stage.times(places).tolist() == step.timestep.tolist() == [int(theirs.timesteps[2 * place])]
        target = stage.target(partial(curved, audio=audio), noisy, places)
        landed = step.coefficients[0] * noisy + step.coefficients[1] * target
        wanted = noisy
        for time in theirs.timesteps[2 * place : 2 * place + 2]:
            wanted = theirs.step(curved(wanted, time.view(1), audio), time, wanted).prev_sample
        assert (landed - wanted).abs().max() < 1e-4


@pytest.mark.parametrize("steps", [1, 2, 4, 8, 16])
def test_a_teacher_that_knows_the_clean_latents_is_followed_exactly(steps: int) -> None:
    stage = DistillationStage(steps)
    clean = torch.from_numpy(named_noise("clean", SHAPE, 0)).double()
    noise = torch.from_numpy(named_noise("noise", SHAPE, 0)).double()
    shares = torch.from_numpy(ALPHAS)

    def teacher(noisy: Tensor, times: Tensor) -> Tensor:
        share = shares[times].view(-1, 1, 1, 1, 1)
        return (noisy - share.sqrt() * clean) / (1 - share).sqrt()

    for place in range(steps):
        places = torch.tensor([place])
        share = float(ALPHAS[int(stage.times(places))])
        noisy = share**0.5 * clean + (1 - share) ** 0.5 * noise
        assert (stage.target(teacher, noisy, places) - noise).abs().max() < 1e-4
        assert stage.weights(places).item() == pytest.approx(max(1, (1 - share) / share), rel=1e-4)


@pytest.mark.parametrize("place", [0, 20, 39])
def test_a_consistency_loss_is_that_of_its_formula(place: int) -> None:
    """Against diffusers' DDIM of 40 steps and the scalings in NumPy; a student that knows the answer has no loss."""
    stage, audio = ConsistencyStage((4, 2)), torch.tensor(0.5)
    theirs = scheduler("ddim-trailing")
    theirs.set_timesteps(40)
    time, places = theirs.timesteps[place], torch.tensor([place])
    assert stage.times(places).tolist() == [int(time)]
    noisy = torch.from_numpy(named_noise("noisy", SHAPE, 0))
    landed = theirs.step(curved(noisy, time.view(1), audio), time, noisy).prev_sample
    after = max(int(time) - 25, 0)

    factor = torch.tensor(1.0, requires_grad=True)

    def student(latents: Tensor, times: Tensor) -> Tensor:
        return factor * torch.sin(latents) * times.view(-1, 1, 1, 1, 1) / 1000

    def estimate(latents: Tensor, at: int, by: float = 1.0) -> Any:
        x, power = latents.numpy().astype(np.float64), (10 * at) ** 2 + 0.25
        noise = by * student(latents, torch.tensor([at])).detach().numpy().astype(np.float64)
        clean = (x - (1 - ALPHAS[at]) ** 0.5 * noise) / ALPHAS[at] ** 0.5
        return 0.25 / power * x + 10 * at / power**0.5 * clean

    def huber(by: float = 1.0) -> float:
        error = estimate(noisy, int(time), by) - estimate(landed, after)  # only the first is learnt
        return float(np.mean(np.sqrt(error**2 + 1e-6) - 1e-3))

    loss, predicted = stage.loss(student, partial(curved, audio=audio), noisy, places)
    assert torch.equal(predicted, student(noisy, time.view(1)))
    assert loss.item() == pytest.approx(huber(), rel=1e-3)
    loss.backward()
    assert factor.grad is not None
    assert factor.grad.item() == pytest.approx((huber(1 + 1e-5) - huber(1 - 1e-5)) / 2e-5, rel=2e-2)
    assert after > 0 or np.array_equal(estimate(landed, 0), landed.numpy())

    def knows(latents: Tensor, times: Tensor) -> Tensor:
        share = torch.from_numpy(ALPHAS)[times].view(-1, 1, 1, 1, 1)
        return ((latents - share.sqrt() * 0.3) / (1 - share).sqrt()).float()

    known = float(ALPHAS[int(time)]) ** 0.5 * 0.3 + (1 - float(ALPHAS[int(time)])) ** 0.5 * noisy
    assert stage.loss(knows, knows, known, places)[0].item() < (1e-6 if after else 1e-1)


@pytest.mark.parametrize("steps", [8, 4, 2, 1])
def test_consistency_is_trained_at_the_steps_that_it_is_sampled_at(steps: int) -> None:
    trained = ConsistencyStage((8,)).times(torch.arange(40)).tolist()
    assert set(timesteps(steps, "ddim-trailing").tolist()) <= set(trained)


def test_consistency_learns_in_bf16() -> None:
    """The estimate that is not learnt leaves weights without gradients in autocast's cache."""
    stage, layer = ConsistencyStage((4,)), torch.nn.Linear(3, 3)

    def student(latents: Tensor, _times: Tensor) -> Tensor:
        noise: Tensor = layer(latents).float()
        return noise

    with torch.autocast("cpu", dtype=torch.bfloat16):
        noisy = torch.from_numpy(named_noise("noisy", SHAPE, 0))
        loss, _ = stage.loss(student, partial(curved, audio=torch.tensor(0.5)), noisy, torch.tensor([10]))
    loss.backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.abs().max() > 0


def test_every_place_is_drawn_as_often() -> None:
    places = DistillationStage(8).draw(torch.arange(1000))
    assert torch.bincount(places).tolist() == [125] * 8


def test_guidance_comes_first_at_twice_the_steps() -> None:
    assert [(stage.name, stage.steps, stage.guided) for stage in halving_stages((4, 2, 1))] == [
        ("guidance", 8, True),
        ("4-steps", 4, False),
        ("2-steps", 2, False),
        ("1-steps", 1, False),
    ]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"steps": ()}, "--steps is empty"),
        ({"steps": (8, 2)}, "has 2 after 8"),
        ({"steps": (6,)}, "has 6; give powers of two"),
        ({"steps": (0,)}, "has 0; give powers of two"),
        ({"method": "consistency", "steps": (16, 8)}, "--steps has 16; --method consistency is for up to 8"),
        ({"method": "magic"}, "--method is magic; choose one of progressive, consistency"),
        ({"guidance": 0.5}, "--guidance is 0.5"),
        ({"guidance": float("nan")}, "--guidance is nan"),
    ],
)
def test_options_that_cannot_be(given: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as raised:
        DistillOptions(checkpoint=tmp_path, **given)
    assert told in str(raised.value)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    return tiny_data(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture
def options(tmp_path: Path, checkpoint: Callable[[int], Path]) -> Callable[..., DistillOptions]:
    def make(*changes: str, steps: tuple[int, ...] = (2, 1)) -> DistillOptions:
        file = tmp_path / "stage.yaml"
        file.write_text(yaml.safe_dump(STAGE))
        return DistillOptions(checkpoint=checkpoint(64), steps=steps, config=file, changes=changes)

    return make


def unet_of(folder: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = read_tensors(folder / "latentsync_unet.pt")["state_dict"]
    return state


def test_the_guided_stages_loss(data: DataSet, options: Callable[..., DistillOptions]) -> None:
    """Against two plain forwards and the clean estimates' own difference."""
    given = options()
    teacher = Checkpoint(CheckpointFiles.in_folder(given.checkpoint))
    sources = UNetSources(checkpoint=teacher, data=data)
    task = DistillTask(given.settings(), sources, DistillationStage(4, guided=True), TeacherRecord("", 1.5))
    task.to(torch.device("cpu"))
    task.prepare(0, 1)
    sample = {name: value[None] for name, value in task.samples[1].items()}
    student, unet = (Checkpoint(CheckpointFiles.in_folder(given.checkpoint)).unet().eval() for _ in range(2))
    with torch.no_grad():
        student.conv_out.weight.mul_(1.1)
        measured = float(task.loss(student, sample)["total"])
        time = 999 - 250 * (int(sample["timestep"]) // 250)
        share = float(ALPHAS[time])
        vae = teacher.vae()
        mask = torch.from_numpy(teacher.mask())
        latents = []
        for name, faces in (
            ("target", sample["target"]),
            ("masked", sample["target"] * mask),
            ("reference", sample["reference"]),
        ):
            posterior = vae.encode(faces[0])
            sampled = posterior.mean + posterior.deviation * sample[f"noise.{name}"][0]
            latents.append(0.18215 * sampled.transpose(0, 1)[None])
        noisy = share**0.5 * latents[0] + (1 - share) ** 0.5 * sample["noise.shared"]
        painted = mask[::8, ::8].expand(1, 1, 16, -1, -1)
        inputs = torch.cat([noisy, painted, latents[1], latents[2]], dim=1)
        at, audio = torch.tensor([float(time)]), sample["audio"]
        heard, unheard = (unet(inputs, at, tokens)[0] for tokens in (audio, torch.zeros_like(audio)))
        wanted = unheard + 1.5 * (heard - unheard)
        clean = [(noisy - (1 - share) ** 0.5 * e) / share**0.5 for e in (student(inputs, at, audio)[0], wanted)]
        snr = share / (1 - share)
        expected = max(snr, 1) * float((clean[0] - clean[1]).square().mean())
    assert measured == pytest.approx(expected, rel=1e-3)
    assert measured > 1e-4


def test_students_one_after_another(data: DataSet, options: Callable[..., DistillOptions], tmp_path: Path) -> None:
    notes: list[str] = []
    given = options()
    (first,) = distill(data.folder, tmp_path / "out", options(steps=(2,)))
    written = (first.checkpoint / "latentsync_unet.pt").stat().st_mtime_ns
    told = Callbacks(note=notes.append)
    students = distill(data.folder, tmp_path / "out", given, resume=True, callbacks=told)  # and further
    assert [student.steps for student in students] == [2, 1]
    assert (first.checkpoint / "latentsync_unet.pt").stat().st_mtime_ns == written
    assert [note for note in notes if note.startswith("stage")] == [
        "stage 1 of 3: guidance",
        "stage 2 of 3: 2-steps",
        "stage 3 of 3: 1-steps",
    ]
    states = [unet_of(given.checkpoint), *(unet_of(student.checkpoint) for student in students)]
    for before, after in pairwise(states):
        assert any(not torch.equal(before[key], after[key]) for key in before)
    teacher = Checkpoint(CheckpointFiles.in_folder(given.checkpoint)).hashes()["unet"]
    for student, times in zip(students, ([999, 499], [999]), strict=True):
        Checkpoint(CheckpointFiles.in_folder(student.checkpoint)).check()
        assert not (student.checkpoint / "state").exists()
        assert json.loads((student.checkpoint / "sampling.json").read_text()) == {
            "steps": len(times),
            "guidance": 1.0,
            "sampler": "ddim-trailing",
            "cache_interval": None,
            "timesteps": times,
            "teacher": teacher,
            "teacher_guidance": 1.5,
        }
    again = distill(data.folder, tmp_path / "out", given, resume=True)
    assert [student.checkpoint for student in again] == [student.checkpoint for student in students]
    with pytest.raises(UsageError, match="holds a training already"):
        distill(data.folder, tmp_path / "out", given)
    with pytest.raises(UsageError, match="begun with another steps"):
        distill(data.folder, tmp_path / "out", options(steps=(4, 2)), resume=True)
    with pytest.raises(UsageError, match="is a student, and has no guidance to fold in"):
        replace(given, checkpoint=first.checkpoint).files()


def test_one_network_of_consistency_serves_all_steps(
    data: DataSet, options: Callable[..., DistillOptions], tmp_path: Path
) -> None:
    given = replace(options(steps=(4, 2, 1)), method="consistency")
    students = distill(data.folder, tmp_path / "out", given)
    assert [path.name for path in sorted((tmp_path / "out" / "stages").iterdir())] == ["consistency"]
    states = [unet_of(student.checkpoint) for student in students]
    assert all(torch.equal(states[0][key], state[key]) for state in states for key in state)
    taught = unet_of(given.checkpoint)
    assert any(not torch.equal(states[0][key], taught[key]) for key in taught)
    written = [json.loads((student.checkpoint / "sampling.json").read_text()) for student in students]
    assert [(one["steps"], one["timesteps"]) for one in written] == [
        (4, [999, 749, 499, 249]),
        (2, [999, 499]),
        (1, [999]),
    ]
    with pytest.raises(UsageError, match="begun with another method"):
        distill(data.folder, tmp_path / "out", replace(given, method="progressive"), resume=True)


def test_an_interrupted_distillation_goes_on_bit_for_bit(
    data: DataSet, options: Callable[..., DistillOptions], tmp_path: Path
) -> None:
    """Stopped amid its second stage."""
    given, done = options("run.ema_decay=0.5", steps=(1,)), 0
    (whole,) = distill(data.folder, tmp_path / "whole", given)

    def stop(_report: object) -> None:
        nonlocal done
        done += 1
        if done == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Cancelled):
        distill(data.folder, tmp_path / "parts", given, callbacks=Callbacks(step=stop))
    (parts,) = distill(data.folder, tmp_path / "parts", given, resume=True)
    a, b = unet_of(whole.checkpoint), unet_of(parts.checkpoint)
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_teacher_is_learnt(options: Callable[..., DistillOptions], tmp_path: Path) -> None:
    """The student of one step comes nearer to two steps of its teacher."""
    one = tiny_data(tmp_path / "one", seeds=range(1), frames=48)
    losses: list[float] = []
    changes = ("run.max_train_steps=16", "run.cache_latents=true", "optimizer.lr=1e-3", "ckpt.save_ckpt_steps=1000")
    callbacks = Callbacks(step=lambda report: losses.append(report.losses["total"]))
    distill(one.folder, tmp_path / "out", options(*changes, steps=(1,)), callbacks=callbacks)
    last = losses[16:]
    assert len(last) == 16
    assert np.mean(last[-4:]) < 0.7 * np.mean(last[:4])
