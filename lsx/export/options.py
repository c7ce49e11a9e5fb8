"""What an export is asked for. Light: wrong options are refused before anything heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lsx.core.tensors import PRECISIONS, FloatPrecision, Precision
from lsx.errors import UsageError
from lsx.export.face_models.models import find_face_models
from lsx.models.checkpoint_files import STABLE_SYNCNET_FILE

__all__ = ["ExportOptions"]

_WIDER: dict[Precision, tuple[FloatPrecision, ...]] = {
    "fp32": (),
    "fp16": ("fp32", "bf16"),
    "bf16": ("fp32",),
    "int8": ("fp32", "bf16", "fp16"),
    "fp8": ("fp32", "bf16", "fp16"),
}
"""Precisions whose range or digits exceed another's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What a bundle is to be. Raises UsageError, and ExportError for a folder without face models."""

    precision: Precision = "fp16"
    fallback: Precision | None = None
    """A wider precision to carry too, in a bundle inside the bundle: a chunk whose result is not finite is done once
    more with it."""
    face_models: Path | None = None
    """Folder with face models, default MediaPipe's, fetched through pip."""
    auxiliary: Path | None = None
    """Folder with `stable_syncnet.pt`, whose graphs the bundle is to carry: `speaker: active` asks them, too."""
    parity_report: Path | None = None
    """File for every figure of the check as JSON, also where a graph fails it."""

    share_halves: bool = False
    """Whether the U-Net computes once what both halves of guidance have in common: the same numbers of 3 % less work,
    and no batch of two chunks that are no halves."""

    def check_student(self, sampling: Path | None) -> None:
        """Refuse what a student has not. sampling : its checkpoint's sampling.json, None of a teacher's. UsageError."""
        if self.share_halves and sampling is not None:
            raise UsageError("--share-halves is for guidance, which a student has none of")

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UsageError(f"--precision is {self.precision}; choose one of {', '.join(PRECISIONS)}")
        if self.auxiliary is not None and not (self.auxiliary / STABLE_SYNCNET_FILE).is_file():
            raise UsageError(f"--auxiliary is {self.auxiliary}: no {STABLE_SYNCNET_FILE} in it to ask who speaks")
        if self.face_models is not None:
            find_face_models(self.face_models)
        known = _WIDER[self.precision]
        if self.fallback is not None and self.fallback not in known:
            raise UsageError(
                f"--fallback is {self.fallback}; for {self.precision} choose {' or '.join(known) or 'none'}"
            )
