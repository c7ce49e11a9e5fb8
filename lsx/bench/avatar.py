"""A run over an avatar beside the direct run over the video that it was prepared of, from file to file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from lsx.bench.report import Row
from lsx.bench.timing import Budget, measure, rows_of
from lsx.bundle.bundle import Bundle
from lsx.core.sampling import SamplingOptions
from lsx.engines.registry import EngineOptions
from lsx.runtime.avatar_job import prepare_avatar
from lsx.runtime.lipsync import LipSync

__all__ = ["avatar_rows"]

_SECONDS = 120.0


def avatar_rows(
    bundle: Bundle,
    backend: str,
    options: SamplingOptions,
    engine: EngineOptions,
    clip: tuple[Path, Path],
    repeat: int | None,
    say: Callable[[str], None],
) -> list[Row]:
    """Both runs in turn, with engines that are loaded once; and how long the preparation took.

    Raises as LipSync.run and prepare_avatar do.
    """
    video, audio = clip
    with tempfile.TemporaryDirectory(prefix="lsx-bench-") as temporary:
        folder = Path(temporary)
        say("avatar: prepare")

        def prepare() -> None:
            prepare_avatar(bundle, video, folder / "avatar", backend=backend, engine=engine)

        prepared = measure({backend: prepare}, Budget(repeat=1))
        say("avatar: beside the direct run")
        with LipSync.open(bundle, backend, engine) as lipsync:

            def run(source: Path) -> None:
                lipsync.run(source, audio, folder / "out.mp4", options)

            works = {"video": lambda: run(video), "avatar": lambda: run(folder / "avatar")}
            timed = measure(works, Budget(repeat=repeat, seconds=_SECONDS, most=5))
    what = f"{options.steps} steps, {audio.name}"
    return [
        *rows_of("avatar", f"run, {what}", timed, "video"),
        *rows_of("avatar", f"prepare {video.name}", prepared, None),
    ]
