"""One stage of a distillation as a training: the student's U-Net, its teacher, and the files that come of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from lsx.bundle.manifest import StudentEntry
from lsx.core.sampling import SamplingOptions
from lsx.denoising.schedule import timesteps
from lsx.models.checkpoint_files import SAMPLING_FILE
from lsx.training.config import UNetSettings
from lsx.training.distillation import SAMPLER, Stage
from lsx.training.losses import UNetBatch, UNetDraws
from lsx.training.unet_task import UNetSources, UNetTask

__all__ = ["DistillTask", "TeacherRecord", "student_options"]


@dataclass(frozen=True, slots=True)
class TeacherRecord:
    """The first teacher: what a student's file says of it."""

    unet_sha256: str
    guidance: float
    """The guidance scale that was folded in."""

    def write(self, folder: Path, steps: int) -> None:
        """Write `sampling.json` of a student of so many steps beside its weights."""
        options = student_options(steps)
        entry = StudentEntry(
            steps=options.steps,
            guidance=options.guidance,
            sampler=options.sampler,
            cache_interval=options.cache_interval,
            timesteps=tuple(timesteps(options.steps, options.sampler).tolist()),
            teacher=self.unet_sha256,
            teacher_guidance=self.guidance,
        )
        (folder / SAMPLING_FILE).write_text(entry.model_dump_json(indent=2), encoding="utf-8")


def student_options(steps: int) -> SamplingOptions:
    """How a student of so many steps is sampled."""
    return SamplingOptions(steps=steps, guidance=1.0, sampler=SAMPLER, cache_interval=None)


class DistillTask(UNetTask):
    """A stage of a distillation: the student begins as its teacher. Raises UsageError, CheckpointError."""

    def __init__(
        self,
        settings: UNetSettings,
        sources: UNetSources,
        stage: Stage,
        record: TeacherRecord,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> None:
        """sources : with the teacher's checkpoint; record : of the first teacher."""
        # a chunk begins with one noise for all its frames, and a student has no guidance
        super().__init__(replace(settings, mixed_noise_alpha=None, audio_dropout=0.0), sources, progress)
        self._stage, self._record = stage, record
        self._teacher = sources.checkpoint.unet().eval().requires_grad_(requires_grad=False)
        self.frozen_bytes += sum(p.numel() * p.element_size() for p in self._teacher.parameters())

    def to(self, device: torch.device) -> None:
        super().to(device)
        self._teacher.to(device)

    def loss(self, network: nn.Module, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        clip, stage = UNetBatch.of(batch), self._stage
        drawn = UNetDraws.of(batch)
        places = stage.draw(drawn.timesteps)
        draws = replace(drawn, timesteps=stage.times(places))
        sample, noisy, _ = self._loss.inputs(clip, draws)
        conditioning = sample[:, noisy.shape[1] :]

        def student(latents: Tensor, times: Tensor) -> Tensor:
            noise: Tensor = network(torch.cat([latents, conditioning], dim=1), times.float(), clip.audio)[0]
            return noise.float()

        teacher = partial(self._taught, conditioning, clip.audio)
        reconstruction, predicted = stage.loss(student, teacher, noisy, places)
        return self._loss.terms(reconstruction, noisy, predicted, clip, draws.timesteps).scalars()

    def _taught(self, conditioning: Tensor, audio: Tensor, noisy: Tensor, times: Tensor) -> Tensor:
        """The teacher's noise, guided in the stage that folds guidance in."""
        sample, times = torch.cat([noisy, conditioning], dim=1), times.float()
        heard: Tensor = self._teacher(sample, times, audio)[0].float()
        if not self._stage.guided:
            return heard
        unheard: Tensor = self._teacher(sample, times, torch.zeros_like(audio))[0].float()
        return unheard + self._record.guidance * (heard - unheard)

    def write(self, folder: Path, module: nn.Module, step: int) -> None:
        super().write(folder, module, step)
        self._record.write(folder, self._stage.steps)

    def validate(self, checkpoint: Path, output: Path, step: int) -> Mapping[str, float]:
        del step
        clip = self._sources.validation
        return {} if clip is None else clip.render(checkpoint, output, student_options(self._stage.steps))
