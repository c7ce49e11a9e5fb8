"""`lsx run`: bundle, video and audio to lip-synced video."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lsx.bundle.bundle import Bundle
from lsx.bundle.sampling import sampling_of
from lsx.cli.console import counted, detail, emit, err, mode, out, warn
from lsx.cli.options import (
    BackendName,
    BundlePath,
    CacheInterval,
    CheckpointDir,
    End,
    Faces,
    Fps,
    Guidance,
    Provider,
    SamplerName,
    Seed,
    Speaker,
    Start,
    Steps,
    Threads,
    TrustCode,
    check_inputs,
    sampling_keywords,
)
from lsx.cli.progress import Task, task
from lsx.cli.report_files import check_report, write_report
from lsx.core.footage import FootageOptions
from lsx.engines.loading import best_backend
from lsx.engines.registry import EngineOptions
from lsx.errors import UsageError
from lsx.media.targets import STANDARD_OUTPUT

if TYPE_CHECKING:
    from lsx.runtime.run_plan import RunPlan
    from lsx.runtime.run_report import Progress, RunReport

__all__ = ["run"]


def run(
    bundle: BundlePath,
    video: Annotated[Path, typer.Argument(help="Video with the face, or an avatar of lsx prepare.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Video to write: .mp4, .mov, .mkv, or - for standard output.")
    ],
    audio: Annotated[
        Path | None, typer.Argument(help="Speech: any file with an audio stream. None where segments have theirs.")
    ] = None,
    steps: Steps = None,
    guidance: Guidance = None,
    seed: Seed = 0,
    cache_interval: CacheInterval = None,
    sampler: SamplerName = None,
    backend: BackendName = "auto",
    provider: Provider = "cpu",
    threads: Threads = None,
    checkpoint_dir: CheckpointDir = None,
    cuda_graph: Annotated[
        bool,
        typer.Option("--cuda-graph/--no-cuda-graph", help="On a GPU: one graph launch a chunk, or plain enqueues."),
    ] = True,
    trust_code: TrustCode = False,
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
    compare: Annotated[Path | None, typer.Option(help="Also write original and result there.")] = None,
    no_face: Annotated[str, typer.Option(help="Frames without a face: pass leaves them, error stops.")] = "pass",
    resume_dir: Annotated[
        Path | None, typer.Option(help="Folder that keeps finished sections: a run that was ended goes on from there.")
    ] = None,
    resume_every: Annotated[float, typer.Option(help="Seconds of the result in a section.")] = 60.0,
    warm_up: Annotated[
        bool, typer.Option("--warm-up", help="Take memory, run once and capture before the clip's time is taken.")
    ] = False,
    length: Annotated[
        str | None, typer.Option(help="audio, video, shortest or longest; default audio, or video with silence.")
    ] = None,
    extend: Annotated[
        str, typer.Option(help="bounce, loop, hold, cut_off, silence or remap: what is too short does that.")
    ] = "bounce",
    remap_limit: Annotated[float, typer.Option(help="How many times faster or slower remap may play the video.")] = 2.0,
    audio_offset: Annotated[str, typer.Option(help="Seconds by which the sound comes later; may be negative.")] = "0",
    start: Start = "0",
    end: End = None,
    fps: Fps = "25",
    speaker: Speaker = "largest",
    faces: Faces = None,
    detect_every: Annotated[
        int, typer.Option(help="Look for faces in every n-th frame, and follow them by their landmarks between.")
    ] = 1,
    segments: Annotated[
        Path | None, typer.Option(help="A .json or .csv: several sounds, each with start, end, speaker.")
    ] = None,
    mix: Annotated[
        str, typer.Option(help="The video's own sound in a segment: replace, over, or duck (12 dB softer).")
    ] = "replace",
    overlap: Annotated[
        int, typer.Option(help="Frames, 0 to 8, over which one chunk leads to the next; 4 cost a third more.")
    ] = 0,
    colour_match: Annotated[
        bool, typer.Option("--colour-match", help="Match a made face's colours to those round it.")
    ] = False,
    sharpen: Annotated[float, typer.Option(help="Sharpen what was made, 0 to 4: 0 is not at all, 1 is visible.")] = 0.0,
    mask: Annotated[
        str, typer.Option(help="soft, hard, or a picture of the aligned face, white where the made one is pasted.")
    ] = "soft",
    silence: Annotated[
        str, typer.Option(help="In silences of 0.4 s and more: sync, keep the video's mouth, or close it.")
    ] = "sync",
    audio_context: Annotated[
        str, typer.Option(help="What the audio encoder hears: exact, as the original, or smooth across its 30 s.")
    ] = "exact",
    compare_layout: Annotated[str, typer.Option(help="How: side, stack, wipe or difference.")] = "side",
    report_file: Annotated[
        Path | None, typer.Option("--report", help="Also write what was done as JSON there.")
    ] = None,
) -> None:
    """Lip-sync a video to speech. The output lasts as long as the audio; a shorter video plays back and forth."""
    if mode.object and output == STANDARD_OUTPUT:
        raise UsageError("--json prints on standard output, where -o - sends the video; take --report FILE instead")
    chosen = sampling_keywords(  # all that can be refused is, before engines load
        steps=steps, guidance=guidance, cache_interval=cache_interval, seed=seed, sampler=sampler
    )
    footage = FootageOptions(
        length=length,
        extend=extend,
        remap_limit=remap_limit,
        audio_offset=audio_offset,
        start=start,
        end=end,
        fps=fps,
        speaker=speaker,
        faces=faces,
        detect_every=detect_every,
        segments=segments,
        mix=mix,
        overlap=overlap,
        colour_match=colour_match,
        sharpen=sharpen,
        mask=mask,
        silence=silence,
        audio_context=audio_context,
        compare_layout=compare_layout,
    )
    engine = EngineOptions(provider=provider, threads=threads, checkpoint_dir=checkpoint_dir, trust_code=trust_code)
    opened = Bundle.open(bundle)
    options = sampling_of(opened, None, chosen, "options")
    check_inputs(video, audio, *(segment.audio for segment in footage.segments or ()))
    from lsx.media.encoding import EncodeOptions

    encode = EncodeOptions(
        codec=codec, encoder=encoder, preset=preset, pix_fmt=pix_fmt, audio_codec=audio_codec, crf=crf
    )
    backend = best_backend(opened, backend, engine)
    from lsx.runtime.lipsync import LipSync
    from lsx.runtime.run_files import is_face_required, open_inputs, sound_notes
    from lsx.runtime.run_sections import Resumption

    is_face_required(no_face)
    Resumption.of(resume_dir, resume_every, output, compare)
    inputs = open_inputs(video, audio, output, bundle=opened, compare=compare, encode=encode, footage=footage)
    check_report(report_file, (bundle, video, audio, segments, output, compare))
    plan = inputs.plan
    notes = sound_notes(inputs.heard.samples())
    for note in notes:
        warn(note)
    frames = plan.timeline.frames
    with task("run") as work:
        work.update("loading engines", 0, frames, _to_make(plan, opened.model.frames, footage))
        with LipSync.open(opened, backend, engine, cuda_graph=cuda_graph, require_verified=require_verified) as lipsync:
            detail("\n".join(f"{name}: {loaded.description}" for name, loaded in lipsync.engines.items()))
            if warm_up:
                work.update("warming up", 0, frames)
                lipsync.warm_up(options)
            report = lipsync.run(
                inputs.video,
                inputs.sound,
                output,
                options,
                footage=inputs.footage,
                encode=encode,
                compare=compare,
                no_face=no_face,  # type: ignore[arg-type]  # checked there
                resume_dir=resume_dir,
                resume_every=resume_every,
                progress=lambda now: _show_progress(work, now, lipsync.backend),
            )
    for note in report.notes:
        if note not in notes:
            warn(note)
    _show(report, output, compare)
    if report_file is not None:
        write_report(report_file, report.as_json())


def _to_make(plan: RunPlan, frames: int, footage: FootageOptions) -> str:
    """Frames to make, the chunks that are computed for each face, and what the options add to these or save."""
    chunker = plan.chunker(frames, footage.overlap)
    made = chunker.count - chunker.silent
    difference = made - chunker.whole
    than = (
        f", {abs(difference)} {'more' if difference > 0 else 'less'} than for the whole clip once" if difference else ""
    )
    return f"{counted(plan.timeline.frames, 'frame')} to make in {counted(made, 'chunk')}{than}"


def _show_progress(work: Task, now: Progress, backend: str) -> None:
    """Frames made, and what is behind them: on a CPU a chunk takes a minute, in which no frame is finished."""
    if now.looked < now.to_look:
        work.update("looking for who speaks", now.looked, now.to_look, f"{now.looked} of {now.to_look} frames")
        return
    left = "" if now.seconds_left is None else f", {_duration(now.seconds_left)} left"
    steps = f", step {now.step} of {now.steps}" if now.step and now.frames < now.total else ""
    rate = f", {now.fps:.2f} frames/s" if now.frames else ""
    note = f"{now.frames} of {now.total} frames, chunk {now.chunk} of {now.chunks}{steps}{rate}{left}"
    work.update(f"lip-sync on {backend}", now.frames, now.total, note)


def _show(report: RunReport, output: Path, compare: Path | None) -> None:
    """What was done."""
    console = err if output == STANDARD_OUTPUT else out
    if not (mode.object or mode.quiet):
        rate = (report.frames - report.resumed_frames) / report.seconds
        console.print(
            f"result: {output} ({counted(report.frames, 'frame')}, {report.seconds:.1f} s, {rate:.2f} frames/s)"
        )
        if compare is not None:
            console.print(f"original and result: {compare}")
        if report.resumed_frames:
            came = _time_code(report.resumed_frames / report.fps)
            console.print(f"resumed: {counted(report.resumed_frames, 'frame')}, up to {came}, made before")
        worked = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in report.stages.items())
        console.print(f"stages: {worked}; the bottleneck is {report.bottleneck}")
        if report.silent_chunks:
            console.print(f"silence: {report.silent_chunks} of {counted(report.chunks, 'chunk')} not computed")
        if report.saved_chunks:
            console.print(f"saved: {counted(report.saved_chunks, 'chunk')} less than for the whole clip")
        if report.repeated_chunks:
            console.print(
                f"overflow: {counted(report.repeated_chunks, 'chunk')} done again in the bundle's fallback precision"
            )
        if report.faceless:
            spans = ", ".join(f"{_time_code(a)} to {_time_code(b)}" for a, b in report.faceless_spans)
            console.print(f"no face: {counted(len(report.faceless), 'frame')} passed through unchanged: {spans}")
    emit(**{name: value for name, value in asdict(report).items() if name != "output"}, output=str(output))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _time_code(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours:02}:{minutes:02}:{rest:05.2f}"
