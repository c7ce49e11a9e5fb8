"""The files of the networks that judge, by their published names. Light: looked for before PyTorch is imported."""

from __future__ import annotations

from pathlib import Path

from lsx.errors import UsageError
from lsx.models.checkpoint_files import STABLE_SYNCNET_FILE

__all__ = ["LPIPS_FILES", "SYNCNET_FILE", "VIDEOMAE_FILE", "check_weights", "has_lpips"]

LPIPS_FILES = ("vgg16-397923af.pth", "vgg.pth")
"""torchvision's VGG16, and LPIPS's linear layers (weights/v0.1/vgg.pth of the `lpips` package)."""

SYNCNET_FILE = "syncnet_v2.model"

VIDEOMAE_FILE = "vit_g_hybrid_pt_1200e_ssv2_ft.pth"
"""VideoMAE v2, for TREPA."""


def has_lpips(folder: Path) -> bool:
    """Whether both files of LPIPS are in `folder`."""
    return all((folder / name).is_file() for name in LPIPS_FILES)


def check_weights(folder: Path) -> None:
    """Raise UsageError where `folder` has the weights of none of the networks that judge."""
    networks = (LPIPS_FILES, (VIDEOMAE_FILE,), (SYNCNET_FILE,), (STABLE_SYNCNET_FILE,))
    if not any(all((folder / name).is_file() for name in names) for names in networks):
        raise UsageError(
            f"{folder}: no weights to judge with. It may hold {' with '.join(LPIPS_FILES)} (LPIPS), "
            f"{VIDEOMAE_FILE} (TREPA), {SYNCNET_FILE} (sync confidence), {STABLE_SYNCNET_FILE} (its cosine)"
        )
