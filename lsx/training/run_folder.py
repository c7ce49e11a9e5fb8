"""The folder of one training: checkpoints that are whole or not there, and what the run was asked for."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lsx.core.atomic_files import check_replaceable, write_whole
from lsx.errors import OutputError, UsageError

__all__ = ["RUN_FILE", "STATE_FOLDER", "RunFolder", "is_main_process"]

RUN_FILE, STATE_FOLDER = "run.json", "state"
"""What a run was asked for, and in a checkpoint what going on needs."""
_CHECKPOINTS = "checkpoints"
_PARTIAL = ".partial"


def is_main_process() -> bool:
    """Whether this process writes and tells: the only one, or the first of those that a launcher started."""
    return os.environ.get("RANK", "0") == "0"


class RunFolder:
    """`OUT/run.json`, `OUT/checkpoints/step-00001000/`, `OUT/log/` (TensorBoard), `OUT/validation/`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / _CHECKPOINTS
        self.log = path / "log"
        self.validation = path / "validation"

    @classmethod
    def check(cls, path: Path, *, resume: bool) -> None:
        """Refuse a folder in which no training can begin or, with `resume`, go on. Raises UsageError, OutputError."""
        there = (path / RUN_FILE).is_file()
        if there and not resume:
            raise UsageError(f"{path}: holds a training already. Go on with it: --resume; or give another -o")
        if not there and resume:
            raise UsageError(f"{path}: no training to resume in it. Leave --resume out to begin one")
        check_replaceable(path, "training's folder", lambda folder: (folder / RUN_FILE).is_file())

    @classmethod
    def start(cls, path: Path, asked: Mapping[str, Any], *, resume: bool) -> RunFolder:
        """Begin a new training in `path`, or go on with the one that is there.

        asked : what the run is, for run.json. Raises UsageError where `resume` and the folder do not go together,
        OutputError where it cannot be written. Of several processes the first one alone writes.
        """
        folder = cls(path)
        if not is_main_process():
            return folder
        cls.check(path, resume=resume)
        try:
            folder.checkpoints.mkdir(parents=True, exist_ok=True)
            if not resume:
                write_whole(path / RUN_FILE, json.dumps(asked, indent=2, sort_keys=True).encode())
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from error
        for leftover in folder.checkpoints.glob(f".*{_PARTIAL}"):
            shutil.rmtree(leftover, ignore_errors=True)
        return folder

    def asked(self) -> dict[str, Any]:
        """What the run was begun with."""
        try:
            content: dict[str, Any] = json.loads((self.path / RUN_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"{self.path / RUN_FILE}: cannot be read: {error}") from error
        return content

    def steps(self) -> list[int]:
        """Steps of which there is a whole checkpoint, in order."""
        names = (entry.name.removeprefix("step-") for entry in self.checkpoints.glob("step-*"))
        return sorted(int(name) for name in names if name.isdigit())

    def checkpoint(self, step: int) -> Path:
        """The folder of one step's checkpoint."""
        return self.checkpoints / f"step-{step:08d}"

    def state(self, step: int) -> Path:
        """What going on from a step needs, inside its checkpoint."""
        return self.checkpoint(step) / STATE_FOLDER

    def latest_state(self) -> int | None:
        """The last step that can be gone on from."""
        steps = [step for step in self.steps() if self.state(step).is_dir()]
        return steps[-1] if steps else None

    def partial(self, step: int) -> Path:
        """The folder in which a checkpoint is written before it is whole; its state goes into `state/` there."""
        return self.checkpoints / f".step-{step:08d}{_PARTIAL}"

    def write(self, step: int, fill: Callable[[Path], None]) -> Path:
        """Write a checkpoint: `fill` gets an empty folder, which becomes the step's when it is whole and on disk.

        Raises OutputError where it cannot be written; earlier checkpoints stay, and nothing of this one.
        """
        partial, target = self.partial(step), self.checkpoint(step)
        try:
            shutil.rmtree(partial, ignore_errors=True)
            (partial / STATE_FOLDER).mkdir(parents=True)
            fill(partial)
            _to_disk(partial)
            shutil.rmtree(target, ignore_errors=True)
            partial.rename(target)
        except (OSError, RuntimeError) as error:  # PyTorch reports a full disk as a RuntimeError
            shutil.rmtree(partial, ignore_errors=True)
            kept = self.steps()
            before = f"the checkpoint of step {kept[-1]} is whole" if kept else "there is no earlier one"
            raise OutputError(
                f"{target}: cannot be written: {getattr(error, 'strerror', None) or error}; {before}. "
                "Make room, then go on with --resume"
            ) from error
        return target

    def drop_old_states(self, keep: int) -> None:
        """Remove what going on from old checkpoints needs; their weights stay."""
        held = [step for step in self.steps() if self.state(step).is_dir()]
        for step in held[:-keep]:
            shutil.rmtree(self.state(step), ignore_errors=True)


def _to_disk(folder: Path) -> None:
    """Have the system write every file, so that a power cut after the rename finds them."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
