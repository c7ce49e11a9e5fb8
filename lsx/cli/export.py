"""`lsx export`: checkpoint to bundle."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from lsx.cli.build import run_build
from lsx.cli.console import err, export_extra, out, quantize_extra
from lsx.core.tensors import LOW_PRECISIONS
from lsx.engines.tensorrt.build_options import BuildOptions
from lsx.engines.tensorrt.libraries import libraries_that_build
from lsx.errors import UsageError

__all__ = ["export"]


def export(
    checkpoint: Annotated[
        Path,
        typer.Argument(help="Folder with latentsync_unet.pt, whisper/tiny.pt, vae/, config.yaml, mask.png."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Bundle to write.")],
    precision: Annotated[str, typer.Option(help="fp32, fp16, bf16, int8 or fp8.")] = "fp16",
    fallback: Annotated[
        str | None, typer.Option(help="Carry this precision too (fp32, bf16), for calls that overflow in the first.")
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Calibration made by lsx calibrate; int8 and fp8 need it.")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="Ranges by max, percentile or mse; default percentile for int8, max for fp8.")
    ] = None,
    percentile: Annotated[float, typer.Option(help="Of absolute activations, for --method percentile.")] = 99.99,
    alpha: Annotated[float, typer.Option(help="SmoothQuant's alpha for int8 linear layers; 0 is off.")] = 0.8,
    keep_fp16: Annotated[
        list[str] | None,
        typer.Option(help="Layers that stay fp16: a pattern of the checkpoint's names; may be repeated."),
    ] = None,
    search_budget: Annotated[
        int, typer.Option(help="Forward passes that may measure layers; fewer than layers measures blocks or levels.")
    ] = 400,
    unet_cosine: Annotated[
        float | None, typer.Option(help="The U-Net's target, which decides what stays fp16; default 0.995.")
    ] = None,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Accept less than 85 % of the FLOPs in int8 or fp8.")
    ] = False,
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
    parity_report: Annotated[
        Path | None, typer.Option(help="Write every figure of the check against PyTorch there, as JSON.")
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
    quantise_options = None
    if precision in LOW_PRECISIONS:
        quantize_extra()
        from lsx.quantization.quantize import QuantiseOptions, quantise_beside

        if calibration is None:
            raise UsageError(f"--precision {precision} needs --calibration CALIB. Make one: lsx calibrate --help")
        quantise_options = QuantiseOptions(
            method=method,  # type: ignore[arg-type]  # checked there
            percentile=percentile,
            alpha=alpha,
            search_budget=search_budget,
            keep_fp16=tuple(keep_fp16 or ()),
            allow_partial=allow_partial,
            unet_cosine=unet_cosine,
        )
    elif calibration is not None:
        raise UsageError(f"--calibration is for int8 and fp8; --precision is {precision}")
    started = time.perf_counter()
    columns = (TextColumn("{task.description:32}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err) as bar:
        task = bar.add_task("export", total=len(STAGES))
        quantisation = None
        if quantise_options is not None and calibration is not None:
            quantisation = quantise_beside(
                loaded,
                calibration,
                precision,  # type: ignore[arg-type]  # one of LOW_PRECISIONS
                output,
                quantise_options,
                lambda what: bar.update(task, description=escape(what[-60:])),
            )
        bundle = export_bundle(
            loaded,
            output,
            precision=precision,  # type: ignore[arg-type]  # checked there
            fallback=fallback,  # type: ignore[arg-type]  # checked there
            face_models=face_models,
            quantisation=quantisation,
            parity_report=parity_report,
            progress=lambda what, done, total: bar.update(task, description=what, completed=done, total=total),
        )
    size = sum(f.stat().st_size for f in output.rglob("*") if f.is_file())
    seconds = time.perf_counter() - started
    out.print(
        f"bundle: {output} ({bundle.model.version}, {bundle.model.resolution} px, {precision}, "
        f"{size / 2**20:.0f} MiB, {seconds:.0f} s)"
    )
    for name, entry in bundle.manifest.graphs.items():
        if entry.coverage is not None:
            out.print(f"{name}: {100 * entry.coverage:.1f} % of convolution and linear FLOPs in {entry.precision}")
    if bundle.manifest.quantisation is not None:
        out.print(f"layer by layer: lsx inspect {output} --layers, {output / 'quantisation'}")
    if build:
        wider = bundle.fallback()
        for part in (bundle,) if wider is None else (bundle, wider):
            for backend in libraries_that_build():
                run_build(part, backend, options=BuildOptions())
