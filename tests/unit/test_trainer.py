"""The training loop on a network of a few numbers: what is not finite, disks that are full, kills, resuming."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from lsx.errors import Cancelled, OutputError, TrainingFailed, UsageError
from lsx.training.config import Settings
from lsx.training.reports import StepReport, last_step
from lsx.training.run_folder import RunFolder
from lsx.training.samples import MicroBatches, Shuffle
from lsx.training.task import TrainingTask
from lsx.training.trainer import Trainer

ASKED: dict[str, Any] = {"kind": "line"}
FILE = "line.pt"


class Points(Dataset[dict[str, Tensor]]):
    """y = 2 x + 1 with noise, by running number."""

    def __init__(self, bad: range = range(0)) -> None:
        self._bad = bad

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        random = np.random.default_rng(number)
        x = torch.tensor(random.standard_normal(3), dtype=torch.float32)
        y = 2 * x.sum() + 1 + 0.1 * random.standard_normal()
        return {"x": x, "y": y * float("nan") if number in self._bad else y}


class Line(TrainingTask):
    """A linear layer under its squared error."""

    def __init__(self, bad: range = range(0)) -> None:
        torch.manual_seed(0)
        self.module: nn.Module = nn.Linear(3, 1)
        self.samples, self.count = Points(bad), 40

    def without_memory(self) -> tuple[nn.Module, tuple[Tensor, ...]]:
        raise NotImplementedError

    def to(self, device: torch.device) -> None:
        del device

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {"total": (network(batch["x"])[:, 0] - batch["y"]).square().mean()}

    def write(self, folder: Path, module: nn.Module, step: int) -> None:
        torch.save({"global_step": step, "state_dict": module.state_dict()}, folder / FILE)

    def load(self, folder: Path) -> None:
        self.module.load_state_dict(torch.load(folder / FILE, weights_only=True)["state_dict"])


def settings(**values: Any) -> Settings:
    usual: dict[str, Any] = {
        "batch_size": 2,
        "lr": 0.01,
        "max_train_steps": 8,
        "save_steps": 4,
        "mixed_precision": "no",
    }
    return Settings(**(usual | values))


def train(folder: Path, task: Line | None = None, *, resume: bool = False, **values: Any) -> dict[str, Tensor]:
    run = RunFolder.start(folder, ASKED, resume=resume)
    Trainer(task or Line(), settings(**values), run).run(resume=resume)
    return weights(run.checkpoint(run.steps()[-1]))


def weights(checkpoint: Path) -> dict[str, Tensor]:
    content: dict[str, Any] = torch.load(checkpoint / FILE, weights_only=True)
    assert int(checkpoint.name.removeprefix("step-")) == content["global_step"]
    state: dict[str, Tensor] = content["state_dict"]
    return state


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(ema: float | None, tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", ema_decay=ema, lr_scheduler="cosine", lr_warmup_steps=2)
    kept: dict[str, Any] = {"ema_decay": ema, "lr_scheduler": "cosine", "lr_warmup_steps": 2}
    folder = RunFolder.start(tmp_path / "parts", ASKED, resume=False)

    def interrupt(report: StepReport) -> None:
        if report.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Cancelled, match="stopped at step 3, which is saved"):
        Trainer(Line(), settings(**kept), folder, progress=interrupt).run()
    assert folder.steps() == [3]
    assert same(train(tmp_path / "parts", resume=True, **kept), whole)


def test_every_batch_is_made_of_the_samples_that_its_step_says() -> None:
    alone = list(MicroBatches(first_step=3, steps=5, accumulate=2, batch=2))
    assert alone == [[12, 13], [14, 15], [16, 17], [18, 19]]
    ranks = [list(MicroBatches(first_step=3, steps=5, accumulate=1, batch=2, rank=r, world=2)) for r in range(2)]
    assert [batch for pair in zip(*ranks, strict=True) for batch in pair] == alone


def test_a_pass_has_every_segment_once_and_passes_differ() -> None:
    shuffle = Shuffle(7, 50)
    first, second = ([shuffle(n) for n in range(start, start + 50)] for start in (0, 50))
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second


def test_last_step() -> None:
    assert last_step(settings(max_train_epochs=3), 40) == 8
    assert last_step(settings(max_train_epochs=3, max_train_steps=1000), 40) == 60
    assert last_step(settings(max_train_epochs=3, max_train_steps=1000), 41, world=2) == 31


def test_accumulated_batches_are_one_larger_batch(tmp_path: Path) -> None:
    large = train(tmp_path / "large", batch_size=4)
    parts = train(tmp_path / "parts", batch_size=2, gradient_accumulation_steps=2)
    assert all((large[key] - parts[key]).abs().max() < 1e-6 for key in large)


def test_a_step_that_is_not_finite_is_skipped_and_counted(tmp_path: Path) -> None:
    reports: list[StepReport] = []
    folder = RunFolder.start(tmp_path / "run", ASKED, resume=False)
    report = Trainer(Line(bad=range(4, 6)), settings(), folder, progress=reports.append).run()
    assert report.skipped == 1
    assert [r.skipped for r in reports] == [0, 0, 1, 1, 1, 1, 1, 1]
    assert all(torch.isfinite(value).all() for value in weights(report.checkpoint).values())


def test_training_stops_after_ten_such_steps_and_earlier_checkpoints_stay(tmp_path: Path) -> None:
    folder = RunFolder.start(tmp_path / "run", ASKED, resume=False)
    with pytest.raises(TrainingFailed, match="10 steps gave NaN or infinity, the last one step 15"):
        Trainer(Line(bad=range(10, 1000)), settings(max_train_steps=100), folder).run()
    assert folder.steps() == [4, 8, 12]
    assert all(torch.isfinite(value).all() for value in weights(folder.checkpoint(12)).values())


def test_a_full_disk_loses_no_earlier_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Line()
    write = task.write

    def full(folder: Path, module: nn.Module, step: int) -> None:
        write(folder, module, step)
        if step == 8:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(task, "write", full)
    folder = RunFolder.start(tmp_path / "run", ASKED, resume=False)
    with pytest.raises(OutputError, match="No space left on device; the checkpoint of step 4 is whole"):
        Trainer(task, settings(), folder).run()
    assert folder.steps() == [4]
    assert not [entry for entry in folder.checkpoints.iterdir() if entry.name.startswith(".")]
    whole = train(tmp_path / "whole")
    assert same(train(tmp_path / "run", resume=True), whole)


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from lsx.training.run_folder import RunFolder\n"
        "from lsx.training.trainer import Trainer\n"
        "from tests.unit.test_trainer import ASKED, Line, settings\n"
        "class Killed(Line):\n"
        "    def write(self, folder, module, step):\n"
        "        super().write(folder, module, step)\n"
        "        if step == 8:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "Trainer(Killed(), settings(), RunFolder.start(Path(sys.argv[1]), ASKED, resume=False)).run()\n"
    )
    run = tmp_path / "run"
    ended = subprocess.run([sys.executable, "-c", code, str(run)], check=False, cwd=Path(__file__).parents[2])
    assert ended.returncode == -signal.SIGKILL
    folder = RunFolder(run)
    assert folder.latest_state() == 4
    assert [entry for entry in folder.checkpoints.iterdir() if entry.name.startswith(".")]
    assert same(train(run, resume=True), train(tmp_path / "whole"))
    assert not [entry for entry in folder.checkpoints.iterdir() if entry.name.startswith(".")]


def test_old_checkpoints_keep_their_weights_and_lose_their_state(tmp_path: Path) -> None:
    train(tmp_path / "run", save_steps=2, keep_states=2)
    folder = RunFolder(tmp_path / "run")
    assert folder.steps() == [2, 4, 6, 8]
    assert [folder.state(step).is_dir() for step in folder.steps()] == [False, False, True, True]


def test_two_processes_are_one_that_accumulates(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from lsx.training.process_group import process_group\n"
        "from lsx.training.run_folder import RunFolder\n"
        "from lsx.training.trainer import Trainer\n"
        "from tests.unit.test_trainer import Line, settings\n"
        "with process_group():\n"
        "    for folder in sys.argv[1:]:\n"
        "        Trainer(Line(), settings(), RunFolder(Path(folder))).run()\n"
    )
    script = tmp_path / "train.py"
    script.write_text(code)
    folders = [tmp_path / "two", tmp_path / "two-more"]
    for folder in folders:
        RunFolder.start(folder, ASKED, resume=False)
    root = Path(__file__).parents[2]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run(
        [*launch, str(script), *map(str, folders)],
        check=True,
        timeout=600,
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    one = train(tmp_path / "one", gradient_accumulation_steps=2)
    for folder in folders:
        two = weights(RunFolder(folder).checkpoint(8))
        assert all((one[key] - two[key]).abs().max() < 1e-6 for key in one)


def test_folders_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no training to resume"):
        RunFolder.start(tmp_path / "run", ASKED, resume=True)
    RunFolder.start(tmp_path / "run", ASKED, resume=False)
    assert json.loads((tmp_path / "run" / "run.json").read_text()) == ASKED
    with pytest.raises(UsageError, match="Go on with it: --resume"):
        RunFolder.start(tmp_path / "run", ASKED, resume=False)
    with pytest.raises(UsageError, match="no checkpoint to resume from"):
        train(tmp_path / "run", resume=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="is not a training's folder"):
        RunFolder.start(tmp_path / "other", ASKED, resume=False)
