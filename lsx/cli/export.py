"""`lsx export`: checkpoint to bundle."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from lsx.cli.build import run_build
from lsx.cli.console import err, export_extra, out
from lsx.engines.tensorrt.building import BuildOptions
from lsx.engines.tensorrt.libraries import libraries_that_build

__all__ = ["export"]


def export(
    checkpoint: Annotated[
        Path,
        typer.Argument(help="Folder with latentsync_unet.pt, whisper/tiny.pt, vae/, config.yaml, mask.png."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Bundle to write.")],
    precision: Annotated[str, typer.Option(help="fp32, fp16 or bf16.")] = "fp16",
    fallback: Annotated[
        str | None, typer.Option(help="Carry this precision too (fp32, bf16), for calls that overflow in the first.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="latentsync-1.5 or latentsync-1.6; needed where there is no YAML.")
    ] = None,
    resolution: Annotated[int | None, typer.Option(help="Pixels; must agree with the YAML.")] = None,
    unet: Annotated[Path | None, typer.Option(help="Instead of latentsync_unet.pt.")] = None,
    whisper: Annotated[Path | None, typer.Option(help="Instead of whisper/tiny.pt.")] = None,
    vae: Annotated[Path | None, typer.Option(help="Instead of vae/.")] = None,
    config: Annotated[Path | None, typer.Option(help="Instead of config.yaml.")] = None,
    mask: Annotated[Path | None, typer.Option(help="Instead of mask.png, or of the released mask.")] = None,
    face_models: Annotated[
        Path | None,
        typer.Option(help="Folder with face models, instead of fetching MediaPipe's through pip."),
    ] = None,
    build: Annotated[
        bool, typer.Option("--build/--no-build", help="End with lsx build, for each TensorRT that can build here.")
    ] = True,
) -> None:
    """Export a checkpoint's graphs to ONNX, check each against PyTorch, write them as a bundle, and build plans."""
    export_extra()
    from lsx.export.exporter import STAGES, export_bundle
    from lsx.models.checkpoint import Checkpoint, CheckpointFiles

    files = CheckpointFiles.in_folder(checkpoint, unet=unet, whisper=whisper, vae=vae, config=config, mask=mask)
    loaded = Checkpoint(files, model=model, resolution=resolution)
    started = time.perf_counter()
    columns = (TextColumn("{task.description:32}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err) as bar:
        task = bar.add_task("export", total=len(STAGES))
        bundle = export_bundle(
            loaded,
            output,
            precision=precision,  # type: ignore[arg-type]  # checked there
            fallback=fallback,  # type: ignore[arg-type]  # checked there
            face_models=face_models,
            progress=lambda what, done, total: bar.update(task, description=what, completed=done, total=total),
        )
    size = sum(f.stat().st_size for f in output.rglob("*") if f.is_file())
    seconds = time.perf_counter() - started
    out.print(
        f"bundle: {output} ({bundle.model.version}, {bundle.model.resolution} px, {precision}, "
        f"{size / 2**20:.0f} MiB, {seconds:.0f} s)"
    )
    if build:
        wider = bundle.fallback()
        for part in (bundle,) if wider is None else (bundle, wider):
            for backend in libraries_that_build():
                run_build(part, backend, options=BuildOptions())
