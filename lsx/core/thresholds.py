"""How far from the reference each precision may be: in one place, for the export's search and for `lsx verify`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace

from lsx.core.tensors import Precision
from lsx.errors import UsageError

__all__ = ["THRESHOLDS", "Thresholds"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Lowest figures with which a bundle passes. Cosines are of the worst chunk that was compared."""

    unet_cosine: float
    """`unet` and `unet_shallow`, each on the reference's own inputs."""
    vae_cosine: float
    """`vae_encoder` and `vae_decoder`, on the reference's own inputs."""
    audio_cosine: float
    """`audio_encoder`, and the tokens that frames get of it."""
    step_cosine: float
    """`step`, on the reference's own inputs."""
    latents_cosine: float
    """Latents after the last step of a whole loop, in which errors add up."""
    mouth_ssim: float
    """Structural similarity of the decoded faces inside the mask, mean over the frames."""
    teacher_correlation: float = -1.0
    """Correlation of the mouth's opening with the teacher's, where one is given; -1 holds for any."""

    def as_dict(self) -> dict[str, float]:
        """The limits by name."""
        return asdict(self)

    def override(self, limits: Mapping[str, float]) -> Thresholds:
        """Return these with some replaced. Raises UsageError for an unknown name, or a number outside -1..1."""
        names = [field.name for field in fields(self)]
        for name, value in limits.items():
            if name not in names:
                raise UsageError(f"no threshold {name}; choose from {', '.join(names)}")
            if not -1 <= value <= 1:
                raise UsageError(f"threshold {name} is {value:g}; give a number in -1..1")
        return replace(self, **limits)


def _of(unet: float, vae: float, audio: float, step: float, latents: float, mouth: float) -> Thresholds:
    return Thresholds(
        unet_cosine=unet,
        vae_cosine=vae,
        audio_cosine=audio,
        step_cosine=step,
        latents_cosine=latents,
        mouth_ssim=mouth,
    )


THRESHOLDS: dict[Precision, Thresholds] = {
    #           unet,    vae,     audio,   step,    latents, mouth SSIM
    "fp32": _of(0.99999, 0.99999, 0.99999, 0.99999, 0.9999, 0.99),
    "fp16": _of(0.9999, 0.9999, 0.9999, 0.9999, 0.999, 0.98),
    "bf16": _of(0.999, 0.999, 0.999, 0.9999, 0.99, 0.95),
    "int8": _of(0.995, 0.995, 0.9999, 0.9999, 0.99, 0.95),
    "fp8": _of(0.995, 0.995, 0.9999, 0.9999, 0.99, 0.95),
}
"""Thresholds by the precision of the bundle."""
