"""Released checkpoints from the model hub: found, downloaded, hashed, arranged as `lsx export` takes them."""

from __future__ import annotations

import errno
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsx.core.atomic_files import check_folder, sha256_of, write_whole
from lsx.errors import CheckpointError, OutputError, UsageError
from lsx.models.checkpoint_files import RELEASED, SOURCE

__all__ = ["FetchPlan", "HubFile", "check_fetch", "fetch", "plan_fetch"]

_REPOSITORIES = {
    "latentsync-1.5": "ByteDance/LatentSync-1.5",
    "latentsync-1.6": "ByteDance/LatentSync-1.6",
}
_FILES = {"latentsync_unet.pt": "latentsync_unet.pt", "whisper/tiny.pt": "whisper/tiny.pt"}
_PAUSE = 0.5  # seconds between two looks at what has come
_VAE_REPOSITORY = "stabilityai/sd-vae-ft-mse"
_VAE_FILES = {
    "config.json": "vae/config.json",
    "diffusion_pytorch_model.safetensors": "vae/diffusion_pytorch_model.safetensors",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """One file of a checkpoint, and where the hub has it."""

    repository: str
    revision: str
    """The commit that the hub's `main` was at when it was asked."""
    name: str
    path: str
    """The file's place in the checkpoint folder."""
    size: int
    sha256: str | None
    """The hash that the hub tells; None for small files, of which it tells none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchPlan:
    """What a fetch will do."""

    model: str
    files: tuple[HubFile, ...]
    missing: tuple[HubFile, ...]
    """Files that are not in the folder yet, or not whole."""

    @property
    def bytes(self) -> int:
        """What is still to be downloaded."""
        return sum(file.size for file in self.missing)


def plan_fetch(model: str, output: Path, *, endpoint: str | None = None) -> FetchPlan:
    """Ask the hub for the files of `model`, and look which of them `output` has.

    endpoint : the hub's address, default $HF_ENDPOINT or huggingface.co.

    Raises UsageError for another model, OutputError for a folder that holds something else, CheckpointError where the
    hub does not answer or lacks a file.
    """
    check_fetch(model, output)
    sources = ((_REPOSITORIES[model], _FILES), (_VAE_REPOSITORY, _VAE_FILES))
    files = tuple(file for repository, names in sources for file in _listed(repository, names, endpoint))
    missing = tuple(file for file in files if not _is_whole(output / file.path, file))
    return FetchPlan(model=model, files=files, missing=missing)


def fetch(
    plan: FetchPlan,
    output: Path,
    *,
    endpoint: str | None = None,
    progress: Callable[[HubFile, int], None] = lambda _, __: None,
) -> None:
    """Download what `plan` misses into `output`, check every file's hash, and write down where all came from.

    An interrupted download goes on where it ended when this is called again. A file whose hash is not the hub's is
    removed. progress : called before each file and twice a second, from another thread too, with the file that is
    coming and the bytes of `plan` that have come.

    Raises OutputError where the disk is too small or cannot be written, CheckpointError where a download fails.
    """
    come = 0
    with _written(output), _without_bars():
        output.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(output).free
        if free < 1.05 * plan.bytes:
            raise OutputError(
                f"{output}: {plan.bytes / 2**30:.1f} GiB are to come and {free / 2**30:.1f} GiB are free. "
                "Free some, or give another -o"
            )
        parts = output / ".download"
        for file in plan.missing:
            progress(file, come)
            with _watched(parts, file, come, progress):
                path = _downloaded(file, parts, endpoint)
            target = output / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
            come += file.size
        content = {
            "model": plan.model,
            "files": {f.path: {"repository": f.repository, "revision": f.revision} for f in plan.files},
            "sha256": {f.path: sha256_of(output / f.path) for f in plan.files},
        }
        write_whole(output / SOURCE, (json.dumps(content, indent=1) + "\n").encode())
        shutil.rmtree(parts, ignore_errors=True)


def _downloaded(file: HubFile, parts: Path, endpoint: str | None) -> Path:
    """Where a file is once it has come, whole. Raises CheckpointError."""
    from huggingface_hub import hf_hub_download

    with _asked(file.repository):
        path = Path(
            hf_hub_download(
                file.repository,
                file.name,
                revision=file.revision,
                local_dir=parts / file.repository,
                endpoint=endpoint,
            )
        )
    _check(path, file)
    return path


@contextmanager
def _watched(folder: Path, file: HubFile, before: int, progress: Callable[[HubFile, int], None]) -> Iterator[None]:
    """Tell now and then, during the block, how many bytes have come: `before`, and those of `file` in `folder`."""
    ended = threading.Event()

    def look() -> None:
        come = 0
        while not ended.wait(_PAUSE):
            come = max(come, min(_bytes_in(folder), file.size))
            progress(file, before + come)

    thread = threading.Thread(target=look, name="lsx-fetch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _bytes_in(folder: Path) -> int:
    """Bytes of unfinished downloads; those of one that is finished, and perhaps being hashed, are not among them."""
    size = 0
    for path in folder.rglob("*.incomplete"):
        with suppress(OSError):
            size += path.stat().st_size
    return size


@contextmanager
def _without_bars() -> Iterator[None]:
    """Keep the hub's library from drawing bars of its own during the block."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    disabled = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not disabled:
            enable_progress_bars()


def _listed(repository: str, names: dict[str, str], endpoint: str | None) -> Iterator[HubFile]:
    """The files `names` (the hub's to the folder's) of a repository. Raises CheckpointError."""
    from huggingface_hub import HfApi

    with _asked(repository):
        info = HfApi(endpoint=endpoint).model_info(repository, files_metadata=True)
    siblings: dict[str, Any] = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    for name, path in names.items():
        sibling = siblings.get(name)
        if sibling is None:
            raise CheckpointError(
                f"{repository} on the hub has no {name}. Download by hand what docs/quickstart.md names"
            )
        yield HubFile(
            repository=repository,
            revision=str(info.sha),
            name=name,
            path=path,
            size=int(sibling.size or 0),
            sha256=None if sibling.lfs is None else str(sibling.lfs.sha256),
        )


def check_fetch(model: str, output: Path) -> None:
    """Refuse another model, and a folder that cannot be written or holds something else, before the hub is asked.

    Raises UsageError, OutputError.
    """
    if model not in _REPOSITORIES:
        raise UsageError(f"model is {model}; choose one of {', '.join(RELEASED)}")
    if output.exists() and not output.is_dir():
        raise OutputError(f"{output}: is a file; give a folder")
    check_folder(output if output.is_dir() else output.absolute().parent)
    known = {path.split("/")[0] for path in (*_FILES.values(), *_VAE_FILES.values())} | {SOURCE, ".download"}
    if output.is_dir():
        other = next((path for path in output.iterdir() if path.name not in known), None)
        if other is not None and not (output / SOURCE).is_file():
            raise OutputError(f"{output}: holds {other.name}, which is no part of a checkpoint. Give another -o")
        source = output / SOURCE
        if source.is_file() and json.loads(source.read_text(encoding="utf-8")).get("model") != model:
            raise OutputError(f"{output}: holds another model. Give another -o")


def _is_whole(path: Path, file: HubFile) -> bool:
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    return file.sha256 is None or sha256_of(path) == file.sha256


def _check(path: Path, file: HubFile) -> None:
    """Raise CheckpointError, and remove the file, where it is not what the hub tells."""
    if not _is_whole(path, file):
        path.unlink(missing_ok=True)
        raise CheckpointError(
            f"{file.name} of {file.repository} came damaged: its SHA-256 is not the hub's. It was removed; fetch again"
        )


@contextmanager
def _asked(repository: str) -> Iterator[None]:
    """Turn whatever the hub's library raises into CheckpointError; a full disk stays an OSError."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise CheckpointError(
            f"{repository}: the hub does not give it ({reason}). Check the network and $HF_ENDPOINT, and fetch again"
        ) from error


@contextmanager
def _written(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{output}: cannot be written: {error.strerror or error}") from error
