"""The loop that both trainings share: steps, accumulation, precision, processes, checkpoints, resuming.

accelerate carries processes, precision and the state on disk. Which samples and noise a step sees is a function of its
number (`samples`), so a run that goes on needs to remember nothing else.
"""

from __future__ import annotations

import math
import os
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor
from torch.utils.data import DataLoader

from lsx.errors import Cancelled, LsxError, OutputError, TrainingFailed, UsageError
from lsx.training.config import Settings
from lsx.training.learning_rate import learning_rate
from lsx.training.reports import StepReport, TrainReport, last_step
from lsx.training.run_folder import RunFolder
from lsx.training.samples import MicroBatches
from lsx.training.stop_request import StopRequest
from lsx.training.task import TrainingTask
from lsx.training.weight_average import WeightAverage

__all__ = ["Trainer"]

_TRAINED = "trained.pt"  # parameters as they are trained, where the released file has others: averaged, merged


@dataclass(slots=True)
class _Counters:
    """What going on needs besides weights, optimiser and schedule."""

    step: int = 0
    skipped: int = 0

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.step, self.skipped = int(state["step"]), int(state["skipped"])


class Trainer:
    """Trains a task into a run's folder.

    progress : called after every step; note : called with lines for the user; both on the main process alone.
    """

    def __init__(
        self,
        task: TrainingTask,
        settings: Settings,
        folder: RunFolder,
        *,
        progress: Callable[[StepReport], None] = lambda _: None,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.task, self.settings, self.folder = task, settings, folder
        self._progress, self._note = progress, note
        self._counters = _Counters()
        self._ema: WeightAverage | None = None
        self._seconds: float | None = None

    def run(self, *, resume: bool = False) -> TrainReport:
        """Train to the last step, or until it is interrupted, which saves.

        Its processes are those of the `process_group` round it. Raises UsageError, OutputError; Cancelled when
        interrupted; TrainingFailed where numbers stay not finite.
        """
        if resume:
            self._load_weights()
        self._prepare()
        if resume:
            self._load_state()
        last = last_step(self.settings, self.task.count, self._accelerator.num_processes)
        try:
            losses = self._steps(last)
            self._any(flag=False)
        finally:
            self._accelerator.free_memory()
            for tracker in self._accelerator.trackers:
                tracker.finish()
            AcceleratorState._reset_state()  # the next training's precision is its own
        return TrainReport(
            steps=last, skipped=self._counters.skipped, checkpoint=self.folder.checkpoint(last), losses=losses
        )

    def _steps(self, last: int) -> Mapping[str, float]:
        """Every step up to `last`, with what is saved and looked at between them. Returns the last one's losses."""
        batches = self._batches(last)
        losses: Mapping[str, float] = {}
        with StopRequest() as stop:
            while self._counters.step < last:
                losses = self._step(batches, last)
                step = self._counters.step
                stopped = step < last and self._any(stop.asked)
                looked_at = step == last or step % self.settings.validation_steps == 0
                if stopped or looked_at or step % self.settings.save_steps == 0:
                    self._save(step)
                if stopped:
                    raise Cancelled(f"stopped at step {step}, which is saved. Go on: the same command with --resume")
                if looked_at:
                    self._validate(step)
        return losses

    def _load_weights(self) -> None:
        step = self.folder.latest_state()
        if step is None:
            raise UsageError(f"{self.folder.path}: no checkpoint to resume from in it. Begin again with another -o")
        self._resumed = step
        self.task.load(self.folder.checkpoint(step))

    def _load_state(self) -> None:
        state = self.folder.state(self._resumed)
        self._accelerator.load_state(str(state))
        if (state / _TRAINED).is_file():
            held = torch.load(state / _TRAINED, weights_only=True, map_location="cpu")
            with torch.no_grad():
                for parameter, value in zip(self._trained, held, strict=True):
                    parameter.copy_(value)

    def _prepare(self) -> None:
        """Device, processes, precision, optimiser, and what a state on disk is made of."""
        settings, module = self.settings, self.task.module
        precision = settings.mixed_precision
        if precision == "fp16" and not torch.cuda.is_available():
            precision = "no"
        self._accelerator = Accelerator(
            cpu=not torch.accelerator.is_available(),  # else accelerate takes torchrun's processes for one each
            mixed_precision=precision,
            gradient_accumulation_steps=settings.gradient_accumulation_steps,
            log_with="tensorboard",
            project_dir=str(self.folder.path),
        )
        asked = int(os.environ.get("WORLD_SIZE", "1"))
        if asked != self._accelerator.num_processes:
            raise UsageError(
                f"{asked} processes were started, and accelerate joins {self._accelerator.num_processes} on "
                f"{self._accelerator.device}: each would train alone, into one folder. Start one process"
            )
        self._flag = torch.zeros((), device=self._accelerator.device)
        self._accelerator.init_trackers(self.folder.log.name)
        for line in (
            *self.task.notes,
            *(["no fp16 on a CPU: float32"] if precision != settings.mixed_precision else []),
        ):
            self._tell(line)
        self.task.to(self._accelerator.device)
        self.task.prepare(self._accelerator.process_index, self._accelerator.num_processes)
        self._accelerator.wait_for_everyone()
        self._trained = [p for p in module.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(self._trained, lr=settings.lr, weight_decay=settings.weight_decay)
        if settings.compile:
            module.compile()
        self._network, self._optimizer = self._accelerator.prepare(module, optimizer)
        last = last_step(settings, self.task.count, self._accelerator.num_processes)
        self._schedule = learning_rate(settings.lr_scheduler, optimizer, warmup=settings.lr_warmup_steps, steps=last)
        self._register()

    def _register(self) -> None:
        """The released file has the weights already, so the state leaves them out."""
        self._accelerator.register_for_checkpointing(self._counters, self._schedule)
        if self.settings.ema_decay is not None:
            self._ema = WeightAverage(self._trained, self.settings.ema_decay)
            self._accelerator.register_for_checkpointing(self._ema)
        self._accelerator.register_save_state_pre_hook(lambda _models, weights, _folder: weights.clear())
        self._accelerator.register_load_state_pre_hook(lambda models, _folder: models.clear())

    def _batches(self, last: int) -> Iterator[Mapping[str, Tensor]]:
        settings = self.settings
        numbers = MicroBatches(
            first_step=self._counters.step,
            steps=last,
            accumulate=settings.gradient_accumulation_steps,
            batch=settings.batch_size,
            rank=self._accelerator.process_index,
            world=self._accelerator.num_processes,
        )
        loader = DataLoader(
            self.task.samples,
            batch_sampler=numbers,
            num_workers=settings.workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=settings.workers > 0,
        )
        device = self._accelerator.device
        for batch in loader:
            yield {name: value.to(device, non_blocking=True) for name, value in batch.items()}

    def _step(self, batches: Iterator[Mapping[str, Tensor]], last: int) -> Mapping[str, float]:
        """One step of the optimiser, over as many forwards as are accumulated."""
        started = time.perf_counter()
        accelerator, settings = self._accelerator, self.settings
        sums: dict[str, Tensor] = {}
        norm = torch.zeros(())
        for _ in range(settings.gradient_accumulation_steps):
            with accelerator.accumulate(self._network):
                with accelerator.autocast():
                    losses = self.task.loss(self._network, next(batches))
                accelerator.backward(losses["total"])
                for name, value in losses.items():
                    sums[name] = sums.get(name, 0) + value.detach().float() / settings.gradient_accumulation_steps
                if accelerator.sync_gradients:
                    norm = torch.as_tensor(accelerator.clip_grad_norm_(self._trained, settings.max_grad_norm))
        means = {name: float(accelerator.reduce(value, "mean")) for name, value in sums.items()}
        self._move(finite=math.isfinite(means["total"]), norm=float(norm))
        self._counters.step += 1
        self._report(means, float(norm), time.perf_counter() - started, last)
        return means

    def _move(self, *, finite: bool, norm: float) -> None:
        """Let the optimiser step, unless numbers are not finite. A scaler skips what only its own scale made so."""
        scaled = self._accelerator.scaler is not None
        if scaled or (finite and math.isfinite(norm)):
            self._optimizer.step()
            self._schedule.step()
            if self._ema is not None and finite:
                self._ema.step()
        if not finite or (not scaled and not math.isfinite(norm)):
            self._counters.skipped += 1
        self._optimizer.zero_grad()
        if self._counters.skipped >= self.settings.max_skipped_steps:
            raise TrainingFailed(
                f"{self._counters.skipped} steps gave NaN or infinity, the last one step {self._counters.step + 1}; "
                f"stopped. The last checkpoint is sound: go on from it with a lower learning rate "
                f"(--set optimizer.lr={self.settings.lr / 2:g}), or bf16 (--set run.mixed_precision=bf16)"
            )

    def _report(self, losses: Mapping[str, float], norm: float, seconds: float, last: int) -> None:
        self._seconds = seconds if self._seconds is None else 0.9 * self._seconds + 0.1 * seconds
        lr = float(self._schedule.get_last_lr()[0])
        scalars = {f"loss/{name}": value for name, value in losses.items()} | {"gradient_norm": norm, "lr": lr}
        scalars["skipped"] = float(self._counters.skipped)
        self._accelerator.log(scalars, step=self._counters.step)
        if not self._accelerator.is_main_process:
            return
        self._progress(
            StepReport(
                step=self._counters.step,
                steps=last,
                losses=losses,
                gradient_norm=norm,
                lr=lr,
                seconds=self._seconds,
                memory=_peak_memory(),
                skipped=self._counters.skipped,
            )
        )

    def _save(self, step: int) -> None:
        """Write a checkpoint. All processes take part: each has a state of its own."""
        accelerator = self._accelerator
        if accelerator.num_processes == 1:
            self.folder.write(step, lambda partial: self._fill(partial, step))
        else:
            self._save_together(step)
        if accelerator.is_main_process:
            self.folder.drop_old_states(self.settings.keep_states)

    def _save_together(self, step: int) -> None:
        """The main process writes; what differs between processes is random numbers, which nothing here draws from."""
        failed: LsxError | None = None
        if self._accelerator.is_main_process:
            try:
                self.folder.write(step, lambda partial: self._fill(partial, step))
            except LsxError as error:
                failed = error
        if self._any(failed is not None):
            raise failed or OutputError("the main process could not write the checkpoint")

    def _fill(self, partial: Path, step: int) -> None:
        module = self._accelerator.unwrap_model(self._network)
        with self._ema.in_place() if self._ema is not None else nullcontext():
            self.task.write(partial, module, step)
        if self._ema is not None or not self.task.written_as_trained:
            torch.save([p.detach().cpu() for p in self._trained], partial / "state" / _TRAINED)
        self._accelerator.save_state(str(partial / "state"), safe_serialization=True)

    def _validate(self, step: int) -> None:
        self._any(flag=False)
        checkpoint = self.folder.checkpoint(step)
        if not self._accelerator.is_main_process or not checkpoint.is_dir():
            return
        values = self.task.validate(checkpoint, self.folder.validation / checkpoint.name, step)
        self._accelerator.log({f"validation/{name}": value for name, value in values.items()}, step=step)

    def _any(self, flag: bool) -> bool:
        """Whether any process says so; none goes on before all have been asked.

        One tensor serves every time: a process that ends while gloo frees the last one waits for ever.
        """
        self._flag.fill_(float(flag))
        if self._accelerator.num_processes > 1:
            torch.distributed.all_reduce(self._flag)
        return bool(self._flag.item() > 0)

    def _tell(self, line: str) -> None:
        if self._accelerator.is_main_process:
            self._note(line)


def _peak_memory() -> float:
    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
