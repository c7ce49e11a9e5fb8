"""`lsx run`: bundle, video and audio to lip-synced video."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lsx.cli.console import err, out
from lsx.cli.options import (
    BackendName,
    BundlePath,
    CacheInterval,
    Guidance,
    Provider,
    Reference,
    SamplerName,
    Seed,
    Steps,
    sample_options,
)
from lsx.engines.loading import AUTO
from lsx.engines.registry import backend_named

__all__ = ["run"]


def run(
    bundle: BundlePath,
    video: Annotated[Path, typer.Argument(help="Video with the face.")],
    audio: Annotated[Path, typer.Argument(help="Speech: any file with an audio stream.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Video to write: .mp4, .mov, .mkv, or - for standard output.")
    ],
    steps: Steps = 20,
    guidance: Guidance = 1.5,
    seed: Seed = 0,
    cache_interval: CacheInterval = "3",
    sampler: SamplerName = "ddim",
    backend: BackendName = "auto",
    provider: Provider = "cpu",
    reference: Reference = None,
    cuda_graph: Annotated[
        bool, typer.Option("--cuda-graph/--no-cuda-graph", help="On a GPU: one graph launch a call, or plain enqueues.")
    ] = True,
    trust_code: Annotated[
        bool, typer.Option("--trust-code", help="Load version-compatible plans, which carry code.")
    ] = False,
    require_verified: Annotated[
        bool, typer.Option("--require-verified", help="Refuse settings that no record of lsx verify covers.")
    ] = False,
    codec: Annotated[
        str | None, typer.Option(help="h264, hevc, av1 or prores; default h264, or the encoder's.")
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="FFmpeg's encoder, as h264_nvenc. See lsx doctor.")] = None,
    preset: Annotated[
        str | None, typer.Option(help="The encoder's: medium or slow of x264, 8 of SVT-AV1, hq of ProRes.")
    ] = None,
    pix_fmt: Annotated[str | None, typer.Option(help="FFmpeg's pixel format, as yuv420p10le.")] = None,
    audio_codec: Annotated[str, typer.Option(help="aac, opus, pcm, or copy: the audio file's own packets.")] = "aac",
    crf: Annotated[
        int | None, typer.Option(help="Quality, lower is better: default 18 (H.264), 20 (HEVC), 24 (AV1).")
    ] = None,
    compare: Annotated[Path | None, typer.Option(help="Also write original and result side by side there.")] = None,
    no_face: Annotated[str, typer.Option(help="Frames without a face: pass leaves them, error stops.")] = "pass",
) -> None:
    """Lip-sync a video to speech. The output lasts as long as the audio; a shorter video plays back and forth."""
    from lsx.media.encoding import EncodeOptions
    from lsx.media.targets import STANDARD_OUTPUT
    from lsx.runtime.lipsync import LipSync
    from lsx.runtime.run_files import open_inputs
    from lsx.runtime.run_report import Progress as Made
    from lsx.runtime.run_report import RunReport

    options = sample_options(  # checked before engines load
        steps=steps, guidance=guidance, cache_interval=cache_interval, seed=seed, sampler=sampler
    )
    if backend != AUTO:
        backend_named(backend)
    encode: dict[str, Any] = {
        "codec": codec,
        "encoder": encoder,
        "preset": preset,
        "pix_fmt": pix_fmt,
        "audio_codec": audio_codec,
        "crf": crf,
    }
    reader, sound = open_inputs(video, audio, output, compare=compare, encode=EncodeOptions(**encode), no_face=no_face)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[fps]:.2f} frames/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err) as bar:
        task = bar.add_task("loading engines", total=None, fps=0.0)

        def show(made: Made) -> None:
            bar.update(task, description="lip-sync", completed=made.frames, total=made.total, fps=made.fps)

        opened = LipSync.open(
            bundle,
            backend,
            provider=provider,
            reference=reference,
            cuda_graph=cuda_graph,
            trust_code=trust_code,
            require_verified=require_verified,
        )
        with opened as lipsync:
            bar.update(task, description=f"lip-sync on {lipsync.backend}")
            report: RunReport = lipsync.run(
                reader,
                sound,
                output,
                steps=steps,
                guidance=guidance,
                seed=seed,
                progress=show,
                cache_interval=options.cache_interval,
                sampler=options.sampler,
                **encode,
                compare=compare,
                no_face=no_face,  # type: ignore[arg-type]  # checked there
            )
    rate = report.frames / report.seconds
    told = err if output == STANDARD_OUTPUT else out
    told.print(f"result: {output} ({report.frames} frames, {report.seconds:.1f} s, {rate:.2f} frames/s)")
    if compare is not None:
        told.print(f"side by side: {compare}")
    worked = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in report.stages.items())
    told.print(f"stages: {worked}; the bottleneck is {report.bottleneck}")
    if report.repeated_calls:
        told.print(f"overflow: {report.repeated_calls} calls were done again in the bundle's fallback precision")
    if report.faceless:
        spans = ", ".join(f"{_time_code(a)} to {_time_code(b)}" for a, b in report.faceless_spans)
        told.print(f"no face: {len(report.faceless)} frames passed through unchanged: {spans}")


def _time_code(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours:02}:{minutes:02}:{rest:05.2f}"
