"""The places of a checkpoint's files. Light: what is missing is found before anything heavy is imported."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from lsx.core.atomic_files import check_folder
from lsx.errors import CheckpointError, OutputError, UsageError

__all__ = [
    "RELEASED",
    "SAMPLING_FILE",
    "SIZES",
    "SOURCE",
    "STABLE_SYNCNET_FILE",
    "CheckpointFiles",
    "check_new_checkpoint",
    "files_behind",
    "read_config",
    "section",
    "stated_model",
    "stated_resolution",
]

STABLE_SYNCNET_FILE = "stable_syncnet.pt"
"""The file in a folder of auxiliary weights, by its released name."""

RELEASED: dict[str, int] = {"latentsync-1.5": 256, "latentsync-1.6": 512}
"""Released models and their resolution in pixels; architecture and key names are the same."""

SIZES = ("small", "full", "minimal")
"""Sizes of random checkpoints: the released topology, narrow, or as large as it is; or few layers of every kind."""

SAMPLING_FILE = "sampling.json"
"""How a student is to be sampled, beside its weights."""

SOURCE = "source.json"
"""What `lsx fetch` writes beside the files: which model they are, and where they came from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFiles:
    """The paths of a checkpoint's parts. `config`, `mask` and a student's `sampling` may be absent (None)."""

    unet: Path
    whisper: Path
    vae: Path
    config: Path | None = None
    mask: Path | None = None
    sampling: Path | None = None

    @classmethod
    def in_folder(cls, folder: Path, **overrides: Path | None) -> CheckpointFiles:
        """The files of `folder` by their usual names; an override that is not None wins over its name.

        Raises CheckpointError when a part is missing.
        """
        if not folder.is_dir():
            raise CheckpointError(
                f"{folder}: no such checkpoint folder. It holds latentsync_unet.pt, whisper/tiny.pt and vae/"
            )
        config, mask, sampling = folder / "config.yaml", folder / "mask.png", folder / SAMPLING_FILE
        files = cls(
            unet=folder / "latentsync_unet.pt",
            whisper=folder / "whisper" / "tiny.pt",
            vae=folder / "vae",
            config=config if config.is_file() else None,
            mask=mask if mask.is_file() else None,
            sampling=sampling if sampling.is_file() else None,
        )
        files = replace(files, **{name: path for name, path in overrides.items() if path is not None})
        for field in fields(files):
            path = getattr(files, field.name)
            if path is not None and not path.exists():
                raise CheckpointError(
                    f"{path}: no such file or folder. Put it there, or say where it is: --{field.name} PATH"
                )
        return files


def files_behind(bundle: Path, folder: Path) -> CheckpointFiles:
    """The files in `folder`, the checkpoint that `bundle` was made from. Raises CheckpointError."""
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder}: the torch backend needs the checkpoint that {bundle} was made from. "
            "Say where it is: --checkpoint-dir DIR"
        )
    return CheckpointFiles.in_folder(folder)


def check_new_checkpoint(folder: Path, *, size: str, seed: int) -> None:
    """Refuse what no random checkpoint can be made of. Raises UsageError, OutputError."""
    if size not in SIZES:
        raise UsageError(f"--size is {size}; choose one of {', '.join(SIZES)}")
    if seed < 0:
        raise UsageError(f"--seed is {seed}; give a whole number from 0 on")
    if folder.exists():
        raise OutputError(f"{folder}: exists already. Give the name of a new folder, or remove this one first")
    check_folder(folder.absolute().parent)


def stated_resolution(files: CheckpointFiles, *, model: str | None, resolution: int | None) -> int:
    """Pixels, by the YAML or `model`, which must agree. Raises UsageError, CheckpointError."""
    if model is not None and model not in RELEASED:
        raise UsageError(f"--model is {model}; choose one of {', '.join(RELEASED)}")
    model = stated_model(files, model)
    content = read_config(files)
    data = section(content, "data", str(files.config)) if content else {}
    stated = data.get("resolution", RELEASED.get(model or ""))
    if stated is None:
        raise UsageError(
            f"nothing says which LatentSync this is: give --model {' or --model '.join(RELEASED)}, "
            "or put the original's config.yaml into the checkpoint folder"
        )
    for name, pixels in (("--resolution", resolution), (f"--model {model}", RELEASED.get(model or ""))):
        if pixels is not None and pixels != stated:
            raise UsageError(
                f"{name} means {pixels} px, but {files.config or 'the model'} says {stated} px. "
                "A wrong pairing gives a visible mask: correct one of them"
            )
    if isinstance(stated, bool) or not isinstance(stated, int):
        raise CheckpointError(f"{files.config}: the data section misstates resolution: {stated!r}")
    return stated


def stated_model(files: CheckpointFiles, model: str | None) -> str | None:
    """`model`, or what `lsx fetch` wrote down beside the files where neither that nor a YAML says it."""
    if model is not None or files.config is not None:
        return model
    try:
        written = json.loads((files.unet.parent / SOURCE).read_text(encoding="utf-8")).get("model")
    except (OSError, ValueError, AttributeError):
        return None
    return written if written in RELEASED else None


def read_config(files: CheckpointFiles) -> dict[str, Any]:
    """The original's YAML, or nothing where there is none. Raises CheckpointError."""
    import yaml

    path = files.config
    if path is None:
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CheckpointError(f"{path}: not a YAML file: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: no `model:` and `data:` sections in it")
    return content


def section(content: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    """A section of the YAML. Raises CheckpointError where it is missing."""
    section = content.get(name)
    if not isinstance(section, dict):
        raise CheckpointError(f"{where}: no `{name}:` section in it; give the original's YAML")
    return section
