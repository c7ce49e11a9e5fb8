"""How far from the reference each precision may be: in one place, for the export's search and for `lsx verify`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace

from lsx.errors import UsageError
from lsx.specs import Precision

__all__ = ["THRESHOLDS", "Thresholds"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Lowest figures with which a bundle passes. Cosines are of the worst call that was compared."""

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

    def as_dict(self) -> dict[str, float]:
        """By name."""
        return asdict(self)

    def override(self, given: Mapping[str, float]) -> Thresholds:
        """With some of them replaced. Raises UsageError for an unknown name, or a number outside -1..1."""
        names = [field.name for field in fields(self)]
        for name, value in given.items():
            if name not in names:
                raise UsageError(f"no threshold {name}; choose from {', '.join(names)}")
            if not -1 <= value <= 1:
                raise UsageError(f"threshold {name} is {value:g}; give a number in -1..1")
        return replace(self, **given)


_LOW = Thresholds(
    unet_cosine=0.995, vae_cosine=0.995, audio_cosine=0.9999, step_cosine=0.9999, latents_cosine=0.99, mouth_ssim=0.95
)

THRESHOLDS: dict[Precision, Thresholds] = {
    "fp32": Thresholds(
        unet_cosine=0.99999,
        vae_cosine=0.99999,
        audio_cosine=0.99999,
        step_cosine=0.99999,
        latents_cosine=0.9999,
        mouth_ssim=0.99,
    ),
    "fp16": Thresholds(
        unet_cosine=0.9999,
        vae_cosine=0.9999,
        audio_cosine=0.9999,
        step_cosine=0.9999,
        latents_cosine=0.999,
        mouth_ssim=0.98,
    ),
    "bf16": Thresholds(
        unet_cosine=0.999,
        vae_cosine=0.999,
        audio_cosine=0.999,
        step_cosine=0.9999,
        latents_cosine=0.99,
        mouth_ssim=0.95,
    ),
    "int8": _LOW,
    "fp8": _LOW,
}
"""By the precision of the bundle."""
