"""What a user chooses of a distillation, checked before anything heavy is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, cast

from lsx.errors import UsageError
from lsx.models.checkpoint_files import CheckpointFiles
from lsx.training.config import UNetSettings, read_settings

__all__ = ["METHODS", "DecoderOptions", "DistillOptions", "FromCheckpoint", "Method"]

Method = Literal["progressive", "consistency"]
METHODS: tuple[Method, ...] = ("progressive", "consistency")

_MOST_STEPS = 128
_MOST_OF_CONSISTENCY = 8  # the time steps of more are none that it is trained at


@dataclass(frozen=True, slots=True, kw_only=True)
class FromCheckpoint:
    """What every distillation begins with, but for the data's folder and the output's."""

    defaults: ClassVar[Path]
    """The YAML that is taken where no other is given; it has no resolution of its own."""

    checkpoint: Path
    """The folder of the checkpoint that is learnt from."""
    config: Path | None = None
    """YAML of a training, as `lsx train unet` takes it; of a decoder's, data, ckpt, optimizer, and run's steps,
    precision, average and weight of LPIPS apply."""
    changes: tuple[str, ...] = ()
    """`section.name=value`, in place of the file's."""
    model: str | None = None
    """`latentsync-1.5` or `latentsync-1.6`, where the checkpoint has no config.yaml."""
    auxiliary: Path | None = None
    """Folder with the weights of StableSyncNet, LPIPS and VideoMAE, for losses on pixels; a decoder takes LPIPS alone.
    """
    validation: Path | None = None
    """Data that is not trained on; a student's first segment of it is rendered, a decoder is judged on it."""

    def files(self) -> CheckpointFiles:
        """The checkpoint's files. Raises CheckpointError."""
        return CheckpointFiles.in_folder(self.checkpoint)

    def settings(self, resolution: int | None = None) -> UNetSettings:
        """The settings of each training.

        resolution : of the checkpoint, for the default configuration. Raises UsageError.
        """
        known = () if self.config is not None or resolution is None else (f"data.resolution={resolution}",)
        file = self.config or self.defaults
        settings = cast("UNetSettings", read_settings("unet", file, (*known, *self.changes)))
        self._check(settings, file)
        return settings

    def _check(self, settings: UNetSettings, file: Path) -> None:
        """Raise UsageError for settings in `file` that this training cannot have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillOptions(FromCheckpoint):
    """A distillation of students. Raises UsageError."""

    defaults = Path(__file__).with_name("distillation.yaml")

    steps: tuple[int, ...] = (8, 4, 2, 1)
    """The students' steps, powers of two up to 128, each half of the one before."""
    guidance: float = 1.5
    """The teacher's guidance scale, 1..20, which is folded in."""
    method: Method = "progressive"
    """`progressive`: guidance first, then a training for every halving of the steps; `consistency`: one training, of
    one network that serves all of `steps`."""

    def __post_init__(self) -> None:
        if not self.steps:
            raise UsageError("--steps is empty; give the students' steps, such as 8,4,2,1")
        for step in self.steps:
            if not 1 <= step <= _MOST_STEPS or step & (step - 1):
                raise UsageError(f"--steps has {step}; give powers of two up to {_MOST_STEPS}, such as 8,4,2,1")
        for before, after in zip(self.steps, self.steps[1:], strict=False):
            if before != 2 * after:
                raise UsageError(f"--steps has {after} after {before}; a student has half the steps of the one before")
        if self.method not in METHODS:
            raise UsageError(f"--method is {self.method}; choose one of {', '.join(METHODS)}")
        if self.method == "consistency" and self.steps[0] > _MOST_OF_CONSISTENCY:
            raise UsageError(
                f"--steps has {self.steps[0]}; --method consistency is for up to {_MOST_OF_CONSISTENCY}: 8,4,2,1"
            )
        if not 1 <= self.guidance <= 20:
            raise UsageError(f"--guidance is {self.guidance:g}; give the teacher's, 1..20 (1.5 is usual)")

    def files(self) -> CheckpointFiles:
        """The teacher's files. Raises CheckpointError, and UsageError where it is a student itself."""
        files = FromCheckpoint.files(self)  # a slotted dataclass is a class anew, which super() does not know
        if files.sampling is not None:
            raise UsageError(
                f"{self.checkpoint} is a student, and has no guidance to fold in. Give what it was made of; "
                "for further students, go on where it was made: lsx distill ... --steps 8,4,2,1 --resume"
            )
        return files

    def _check(self, settings: UNetSettings, file: Path) -> None:
        if not settings.motion:
            raise UsageError(f"{file}: use_motion_module is false; a student is made of the whole network")


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderOptions(FromCheckpoint):
    """The training of a small decoder."""

    defaults = Path(__file__).with_name("decoder.yaml")

    widths: tuple[int, ...] | None = None
    """Channels of the small decoder's levels, those of the whole picture first; half of the full one's unless given."""
    layers: int | None = None
    """Its layers a block, from 0; one less than the full one's unless given."""
