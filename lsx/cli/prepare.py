"""`lsx prepare`: a video to an avatar, which runs take in its place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lsx.bundle.bundle import Bundle
from lsx.cli.console import counted, emit, out
from lsx.cli.options import (
    BackendName,
    BundlePath,
    CheckpointDir,
    End,
    Faces,
    Fps,
    Provider,
    Speaker,
    Start,
    Threads,
    TrustCode,
)
from lsx.cli.progress import task
from lsx.core.atomic_files import check_replaceable
from lsx.engines.loading import best_backend
from lsx.engines.registry import EngineOptions
from lsx.faces.avatar_folder import is_avatar
from lsx.media.regular_files import check_regular

__all__ = ["prepare"]


def prepare(
    bundle: BundlePath,
    video: Annotated[Path, typer.Argument(help="Video with the face.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write: the avatar.")],
    start: Start = "0",
    end: End = None,
    fps: Fps = "25",
    speaker: Speaker = "largest",
    faces: Faces = None,
    proxy: Annotated[
        bool, typer.Option("--proxy", help="Keep the part's frames, without loss, in place of the video's file.")
    ] = False,
    backend: BackendName = "auto",
    provider: Provider = "cpu",
    threads: Threads = None,
    checkpoint_dir: CheckpointDir = None,
    trust_code: TrustCode = False,
) -> None:
    """Compute once what of a video does not depend on the sound: faces, crops, latents. lsx run takes the result."""
    engine = EngineOptions(provider=provider, threads=threads, checkpoint_dir=checkpoint_dir, trust_code=trust_code)
    opened = Bundle.open(bundle)
    check_replaceable(output, "prepared avatar", is_avatar)
    check_regular(video)
    backend = best_backend(opened, backend, engine)
    from lsx.runtime.avatar_job import prepare_avatar

    with task("prepare") as work:
        avatar = prepare_avatar(
            opened,
            video,
            output,
            backend=backend,
            engine=engine,
            start=start,
            end=end,
            fps=fps,
            speaker=speaker,
            faces=faces,
            proxy=proxy,
            progress=lambda done, frames: work.update("faces and latents", done, frames),
        )
    size = sum(file.size for file in avatar.manifest.files())
    out.print(
        f"avatar: {output} ({counted(avatar.manifest.frames, 'frame')}, {size / 2**20:.0f} MiB)",
        markup=False,
        highlight=False,
    )
    out.print(f"next: lsx run {bundle} {output} SOUND -o OUT.mp4", markup=False, highlight=False)
    emit(avatar=str(output), frames=avatar.manifest.frames, bytes=size)
