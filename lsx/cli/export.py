"""`lsx export`: checkpoint to bundle."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lsx.bundle.bundle import Bundle
from lsx.bundle.writing import check_writable
from lsx.cli.build import run_build
from lsx.cli.console import counted, detail, emit, export_extra, out, quantize_extra, warn
from lsx.cli.progress import Task, task
from lsx.cli.report_files import check_report
from lsx.core.tensors import LOW_PRECISIONS
from lsx.engines.tensorrt.build_options import BuildOptions
from lsx.engines.tensorrt.libraries import libraries_that_build
from lsx.errors import BundleError, UsageError

if TYPE_CHECKING:
    from lsx.export.options import ExportOptions
    from lsx.models.checkpoint_files import CheckpointFiles
    from lsx.quantization.options import QuantizeOptions

__all__ = ["export"]


def export(
    checkpoint: Annotated[
        Path,
        typer.Argument(help="Folder with latentsync_unet.pt, whisper/tiny.pt, vae/, config.yaml, mask.png."),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Bundle to write; an older one there goes, plans and records with it."),
    ],
    precision: Annotated[str, typer.Option(help="fp32, fp16, bf16, int8 or fp8.")] = "fp16",
    fallback: Annotated[
        str | None, typer.Option(help="Carry this precision too (fp32, bf16), for chunks that overflow in the first.")
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
        float | None,
        typer.Option(
            help="The U-Net's target, which decides what stays fp16; default fp8 0.995, int8 0.999 if coverage allows."
        ),
    ] = None,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Accept less than 85 % of the FLOPs in int8 or fp8.")
    ] = False,
    share_halves: Annotated[
        bool, typer.Option("--share-halves", help="Compute once what guidance's halves share: 3 % less, see the docs.")
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
    auxiliary: Annotated[
        Path | None, typer.Option(help="Folder with stable_syncnet.pt: --speaker active then asks SyncNet, too.")
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
    from lsx.export.options import ExportOptions
    from lsx.models.checkpoint_files import CheckpointFiles, stated_resolution
    from lsx.quantization.options import QuantizeOptions

    options = ExportOptions(
        precision=precision,  # type: ignore[arg-type]  # checked there
        fallback=fallback,  # type: ignore[arg-type]  # checked there
        face_models=face_models,
        auxiliary=auxiliary,
        parity_report=parity_report,
        share_halves=share_halves,
    )
    quantize_options = QuantizeOptions(
        method=method,  # type: ignore[arg-type]  # checked there
        percentile=percentile,
        alpha=alpha,
        search_budget=search_budget,
        keep_fp16=tuple(keep_fp16 or ()),
        allow_partial=allow_partial,
        unet_cosine=unet_cosine,
    )
    low = options.precision in LOW_PRECISIONS
    if not low and quantize_options.given:
        name = quantize_options.given[0].replace("_", "-")
        raise UsageError(f"--{name} is for int8 and fp8; --precision is {precision}")
    if low != (calibration is not None):
        if calibration is None:
            raise UsageError(f"--precision {precision} needs --calibration CALIB. Make one: lsx calibrate --help")
        raise UsageError(f"--calibration is for int8 and fp8; --precision is {precision}")
    check_writable(output)
    check_report(parity_report, (output, checkpoint))
    files = CheckpointFiles.in_folder(checkpoint, unet=unet, whisper=whisper, vae=vae, config=config, mask=mask)
    options.check_student(files.sampling)
    stated_resolution(files, model=model, resolution=resolution)
    if calibration is not None:
        quantize_extra()
        from lsx.calibration.store import Calibration

        Calibration.open(calibration)
    _warn_of_replaced(output)
    started = time.perf_counter()
    with task("export") as work:
        work.update("loading PyTorch")
        bundle = _exported(files, output, options, quantize_options, calibration, (model, resolution), work)
    seconds = time.perf_counter() - started
    _show(bundle, seconds)
    if build:
        fallback_bundle = bundle.fallback()
        for one in (bundle,) if fallback_bundle is None else (bundle, fallback_bundle):
            for backend in libraries_that_build():
                run_build(one, backend, options=BuildOptions())


def _warn_of_replaced(output: Path) -> None:
    """Say what goes with an older bundle: a build of hours, and verifications, which are of that one alone."""
    try:
        manifest = Bundle.open(output).manifest
    except BundleError:
        return
    if manifest.plans or manifest.records:
        gone = f"{counted(len(manifest.plans), 'plan')} and {counted(len(manifest.records), 'verification record')}"
        warn(f"{output}: the bundle there is replaced, and its {gone} go with it. Another -o keeps them")


def _exported(
    files: CheckpointFiles,
    output: Path,
    options: ExportOptions,
    quantize_options: QuantizeOptions,
    calibration: Path | None,
    stated: tuple[str | None, int | None],
    work: Task,
) -> Bundle:
    """The bundle. stated : --model and --resolution."""
    from lsx.export.exporter import export_bundle
    from lsx.models.checkpoint import Checkpoint

    loaded = Checkpoint(files, model=stated[0], resolution=stated[1])
    quantization = None
    if calibration is not None:
        from lsx.quantization.quantize import quantize_beside

        quantization = quantize_beside(
            loaded,
            calibration,
            options.precision,  # type: ignore[arg-type]  # one of LOW_PRECISIONS
            output,
            quantize_options,
            lambda label: work.update(label[-60:]),
        )

    def show(label: str, done: int, total: int) -> None:
        work.update(label, done, total, f"{min(done + 1, total)} of {total}")

    return export_bundle(loaded, output, options, quantization=quantization, progress=show)


def _show(bundle: Bundle, seconds: float) -> None:
    """What was written."""
    output, manifest = bundle.path, bundle.manifest
    size = sum(f.stat().st_size for f in output.rglob("*") if f.is_file())
    out.print(
        f"bundle: {output} ({bundle.model.version}, {bundle.model.resolution} px, {manifest.precision}, "
        f"{size / 2**20:.0f} MiB, {seconds:.0f} s)"
    )
    for name, entry in manifest.graphs.items():
        if entry.coverage is not None:
            out.print(f"{name}: {100 * entry.coverage:.1f} % of convolution and linear FLOPs in {entry.precision}")
        for parity in entry.parity:
            detail(f"{name}.{parity.output}: max error {parity.max_error:.3g}, cosine {parity.cosine:.7f}")
    if manifest.quantization is not None:
        out.print(f"layer by layer: lsx inspect {output} --layers, {output / 'quantisation'}")
    emit(
        bundle=str(output),
        model=bundle.model.version,
        resolution=bundle.model.resolution,
        precision=manifest.precision,
        bytes=size,
        seconds=seconds,
    )
