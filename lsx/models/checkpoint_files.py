"""Where the files of a checkpoint are. Light: what is missing is found before anything heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

from lsx.errors import CheckpointError

__all__ = ["RELEASED", "CheckpointFiles"]

RELEASED: dict[str, int] = {"latentsync-1.5": 256, "latentsync-1.6": 512}
"""Released models and their resolution in pixels; architecture and key names are the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFiles:
    """Where the parts of a checkpoint are. `config` and `mask` may be absent (None)."""

    unet: Path
    whisper: Path
    vae: Path
    config: Path | None = None
    mask: Path | None = None

    @classmethod
    def in_folder(cls, folder: Path, **overrides: Path | None) -> CheckpointFiles:
        """The files of `folder` by their usual names; an override that is not None wins over its name.

        Raises CheckpointError when a part is missing.
        """
        if not folder.is_dir():
            raise CheckpointError(
                f"{folder}: no such checkpoint folder. It holds latentsync_unet.pt, whisper/tiny.pt and vae/"
            )
        config, mask = folder / "config.yaml", folder / "mask.png"
        files = cls(
            unet=folder / "latentsync_unet.pt",
            whisper=folder / "whisper" / "tiny.pt",
            vae=folder / "vae",
            config=config if config.is_file() else None,
            mask=mask if mask.is_file() else None,
        )
        files = replace(files, **{name: path for name, path in overrides.items() if path is not None})
        for field in fields(files):
            path = getattr(files, field.name)
            if path is not None and not path.exists():
                raise CheckpointError(
                    f"{path}: no such file or folder. Put it there, or say where it is: --{field.name} PATH"
                )
        return files
