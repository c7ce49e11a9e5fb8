"""What a user chooses of a distillation, checked before anything heavy is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from lsx.errors import UsageError
from lsx.models.checkpoint_files import CheckpointFiles
from lsx.training.config import UNetSettings, read_settings

__all__ = ["METHODS", "DecoderOptions", "DistillOptions", "Method"]

Method = Literal["progressive", "consistency"]
METHODS: tuple[Method, ...] = ("progressive", "consistency")

_DEFAULTS = Path(__file__).with_name("distillation.yaml")
_DECODER_DEFAULTS = Path(__file__).with_name("decoder.yaml")
_MOST_STEPS = 128
_MOST_OF_CONSISTENCY = 8  # the time steps of more are none that it is trained at


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillOptions:
    """A distillation, but for the data's folder and the output's. Raises UsageError."""

    checkpoint: Path
    """The teacher's folder."""
    steps: tuple[int, ...] = (8, 4, 2, 1)
    """The students' steps, powers of two up to 128, each half of the one before."""
    guidance: float = 1.5
    """The teacher's guidance scale, 1..20, which is folded in."""
    method: Method = "progressive"
    """`progressive`: guidance first, then a training for every halving of the steps; `consistency`: one training, of
    one network that serves all of `steps`."""
    config: Path | None = None
    """YAML of a stage's training, as `lsx train unet` takes it; by default the one beside this file."""
    changes: tuple[str, ...] = ()
    """`section.name=value`, in place of the file's."""
    model: str | None = None
    """`latentsync-1.5` or `latentsync-1.6`, where the checkpoint has no config.yaml."""
    auxiliary: Path | None = None
    """Folder with the weights of StableSyncNet, LPIPS and VideoMAE, for losses on pixels."""
    validation: Path | None = None
    """Data that is not trained on; its first segment is rendered after each stage."""

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
        files = CheckpointFiles.in_folder(self.checkpoint)
        if files.sampling is not None:
            raise UsageError(
                f"{self.checkpoint} is a student, and has no guidance to fold in. Give what it was made of; "
                "for further students, go on where it was made: lsx distill ... --steps 8,4,2,1 --resume"
            )
        return files

    def settings(self, resolution: int | None = None) -> UNetSettings:
        """The settings of each stage's training.

        resolution : of the teacher, for the default configuration, which has none. Raises UsageError.
        """
        settings = settings_or_default(_DEFAULTS, self.config, self.changes, resolution)
        if not settings.motion:
            raise UsageError(f"{self.config}: use_motion_module is false; a student is made of the whole network")
        return settings


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderOptions:
    """A small decoder's training, but for the data's folder and the output's. Raises UsageError."""

    checkpoint: Path
    """The folder of the checkpoint whose decoder is learnt from."""
    widths: tuple[int, ...] | None = None
    """Channels of the small decoder's levels, those of the whole picture first; half of the full one's unless given."""
    layers: int | None = None
    """Its layers a block, from 0; one less than the full one's unless given."""
    config: Path | None = None
    """YAML like that of `lsx train unet`: data, ckpt, optimizer, and run's steps, precision, average, weight of LPIPS.
    By default the one beside this file."""
    changes: tuple[str, ...] = ()
    """`section.name=value`, in place of the file's."""
    model: str | None = None
    """`latentsync-1.5` or `latentsync-1.6`, where the checkpoint has no config.yaml."""
    auxiliary: Path | None = None
    """Folder with LPIPS' weights."""
    validation: Path | None = None
    """Data that is not trained on, to judge by."""

    def settings(self, resolution: int | None = None) -> UNetSettings:
        """The settings of the training. resolution : as for DistillOptions. Raises UsageError."""
        return settings_or_default(_DECODER_DEFAULTS, self.config, self.changes, resolution)


def settings_or_default(
    default: Path, config: Path | None, changes: tuple[str, ...], resolution: int | None
) -> UNetSettings:
    """The settings in `config`, or in the default file, which has no resolution of its own. Raises UsageError."""
    known = () if config is not None or resolution is None else (f"data.resolution={resolution}",)
    return cast("UNetSettings", read_settings("unet", config or default, (*known, *changes)))
