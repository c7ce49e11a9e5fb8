"""`lsx verify`: engines against the reference, and the record."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from lsx.bundle.bundle import Bundle
from lsx.bundle.records import MINIMUM_CHUNKS
from lsx.bundle.sampling import sampling_of
from lsx.cli.console import emit, export_extra, out, show_table
from lsx.cli.options import (
    BackendName,
    BundlePath,
    CacheInterval,
    CheckpointDir,
    Guidance,
    Provider,
    SamplerName,
    Seed,
    Steps,
    Threads,
    check_checkpoint,
    check_clip,
    sampling_keywords,
)
from lsx.cli.progress import task
from lsx.cli.report_files import ReportFiles
from lsx.errors import AccuracyError, UsageError

if TYPE_CHECKING:
    from lsx.verify.report import Report

__all__ = ["verify"]


def verify(
    bundle: BundlePath,
    checkpoint_dir: CheckpointDir = None,
    clip: Annotated[
        tuple[Path, Path] | None, typer.Option(help="Video and sound; without it, one chunk of seeded inputs.")
    ] = None,
    max_chunks: Annotated[
        int | None, typer.Option(help="At most so many chunks of 16 frames; default the whole clip.")
    ] = None,
    backend: BackendName = "auto",
    provider: Provider = "cpu",
    threads: Threads = None,
    steps: Steps = None,
    guidance: Guidance = None,
    seed: Seed = 0,
    cache_interval: CacheInterval = None,
    sampler: SamplerName = None,
    threshold: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE instead of the precision's own; may be repeated.")
    ] = None,
    auxiliary: Annotated[
        Path | None,
        typer.Option(
            help="Folder with vgg16-397923af.pth and vgg.pth (LPIPS), vit_g_hybrid_pt_1200e_ssv2_ft.pth (TREPA), "
            "syncnet_v2.model, stable_syncnet.pt: what is there judges too."
        ),
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="The clip's video as it ought to become: lips are held to it.")
    ] = None,
    teacher: Annotated[
        Path | None,
        typer.Option(help="Bundle that a student was made of: it dubs the clip, too, and lips are compared."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for report.json and report.html.")
    ] = None,
    record: Annotated[
        bool, typer.Option("--record/--no-record", help="Write the verification record into the manifest.")
    ] = True,
) -> None:
    """Compare a bundle's engines with the PyTorch reference, on the same noise, and record it if all holds."""
    export_extra()
    from lsx.engines.registry import EngineOptions
    from lsx.verify.options import VerifyOptions, checked_backend

    chosen = sampling_keywords(
        steps=steps, guidance=guidance, seed=seed, cache_interval=cache_interval, sampler=sampler
    )
    settings = VerifyOptions(
        clip=clip,
        backend=backend,
        max_chunks=max_chunks,
        thresholds=_thresholds(threshold or []),
        auxiliary=auxiliary,
        truth=truth,
        teacher=teacher,
        record=record,
    )
    engine = EngineOptions(provider=provider, threads=threads, checkpoint_dir=checkpoint_dir)
    opened = Bundle.open(bundle)
    options = sampling_of(opened, None, chosen, "options")
    check_checkpoint(opened, checkpoint_dir)
    check_clip(clip, truth)
    settings = replace(settings, backend=checked_backend(opened, settings, engine))
    files = ReportFiles(output)
    from lsx.verify.html import report_html
    from lsx.verify.verify import verify as run_verification

    with task("verify") as work:
        report = run_verification(opened, settings, options=options, engine=engine, progress=work.update)
    emit(**report.as_json())
    _show(report)

    def html() -> str:
        layers = bundle / "quantisation" / "layers.json"
        return report_html(report, json.loads(layers.read_text(encoding="utf-8")) if layers.is_file() else None)

    files.write(json.dumps(report.as_json(), indent=1) + "\n", html)
    files.say()
    if not report.passed:
        worst = ", ".join(row.name for row in report.layers[:3])
        blame = f"; to blame: {report.failing_graph}" if report.failing_graph else ""
        blame += f", layers {worst}" if worst else ""
        raise AccuracyError(f"{bundle} failed on {report.backend}: {report.failures[0]}{blame}. It was not recorded")
    out.print(f"passed: every threshold of {report.precision} holds")
    if not record or report.coverage is None:
        return
    smoke = report.coverage.smoke_check
    if smoke is None:
        out.print(f"verified: {report.coverage}")
    else:
        out.print(
            f"a smoke check, not verified: {smoke}. Recorded: {report.coverage}. To verify: --clip VIDEO AUDIO with at "
            f"least {MINIMUM_CHUNKS * 16} frames, at the steps and settings that will be run"
        )


def _thresholds(texts: list[str]) -> dict[str, float]:
    limits = {}
    for text in texts:
        name, equals, value = text.partition("=")
        try:
            limits[name] = float(value)
        except ValueError:
            equals = ""
        if not equals:
            raise UsageError(f"--threshold is {text}; give NAME=VALUE, as unet_cosine=0.999")
    return limits


def _show(report: Report) -> None:
    """The tables."""
    out.print(f"{report.model}, {report.precision}, {report.engine}; {report.source}")
    table = Table(
        "graph", "output", "forwards", "cosine", "max error", "mean error", "SNR dB", box=None, pad_edge=False
    )
    for row in report.graphs:
        f = row.figures
        cells = (f"{f.cosine:.7f}", f"{f.max_error:.3g}", f"{f.mean_error:.3g}", f"{f.snr:.1f}")
        table.add_row(row.graph, row.output, str(row.forwards), *cells)
    if report.tokens is not None:
        f = report.tokens
        table.add_row(
            "audio tokens", "", "", f"{f.cosine:.7f}", f"{f.max_error:.3g}", f"{f.mean_error:.3g}", f"{f.snr:.1f}"
        )
    show_table(table)
    drift = ", ".join(f"{f.cosine:.5f}" for f in report.drift)
    out.print(f"drift of the latents, cosine after each step: {drift}")
    for estimate in report.estimates:
        out.print(
            f"clean estimate at step {estimate.step + 1} (t = {estimate.timestep}), mouth: "
            f"PSNR {estimate.psnr:.1f} dB, SSIM {estimate.ssim:.4f}"
        )
    if report.clip is not None:
        c = report.clip
        out.print(
            f"{c.frames} frames: mouth PSNR {c.mouth_psnr:.1f} dB, SSIM {c.mouth_ssim:.4f}; face PSNR "
            f"{c.face_psnr:.1f} dB, SSIM {c.face_ssim:.4f}; change from frame to frame {c.temporal:.2f} levels off"
        )
        for line in c.lines():
            out.print(line)
    for line in () if report.teacher is None else report.teacher.lines():
        out.print(line)
    for line in report.failures:
        out.print(f"failed: {line}")
    if report.bisection:
        table = Table(
            "this the engine's, the rest the reference's", "latents", "mouth SSIM", "", box=None, pad_edge=False
        )
        for hybrid in report.bisection:
            verdict = "fails" if hybrid.failed else "holds"
            table.add_row(hybrid.component, f"{hybrid.latents_cosine:.5f}", f"{hybrid.mouth_ssim:.4f}", verdict)
        show_table(table)
        out.print(f"to blame: {report.failing_graph}")
    for layer in report.layers:
        out.print(f"  {layer.name}: relative error {layer.error:.3g}, {layer.jump:.1f} times that of what came before")
