"""What precisions, DeepCache, samplers and students cost in lips, on lsx-tiny: python -m examples.tiny.accuracy FOLDER.

Prints the tables of docs/accuracy.md. Each setting dubs the same clips, whose truth is known, with the same noise.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from examples.commands import lsx
from examples.synthetic_clip import write_clip, write_wav
from examples.tiny.checkpoint import tiny_checkpoint
from examples.tiny.clips import render_truth, tiny_clip
from examples.tiny.dataset import HELD_OUT
from examples.tiny.student import KEPT, student_checkpoint
from examples.tiny.voice import speech
from lsx.bench.judged_clip import JudgedClip, judged_clip
from lsx.bundle.bundle import Bundle
from lsx.core.graph_names import LOOP_GRAPHS
from lsx.core.sampling import SamplingOptions
from lsx.denoising.executor_cache import ExecutorCache, executor_cache_for
from lsx.engines.loading import opened_engines
from lsx.engines.registry import EngineOptions

__all__ = ["main"]

FRAMES, FIRST = 64, HELD_OUT + 5000
_PRECISIONS = ("fp32", "fp16", "int8", "int8 0.995", "int8 0.9995", "fp8")
"""A number after int8 is the cosine that its U-Net is to have: layers stay fp16 until it is reached."""
_WHOLE = ("lsx-tiny", "fp16")  # measured at all settings
_HEAD = (
    "model",
    "precision",
    "sampler",
    "steps",
    "DeepCache",
    "evaluations",
    "seconds a chunk",
    "correlation, mean",
    "at worst",
    "lag, frames",
    "mouth PSNR, dB",
)
RELEASED = SamplingOptions(steps=20, guidance=1.5, cache_interval=3)
OTHERS = (
    *(SamplingOptions(steps=20, guidance=1.5, cache_interval=n) for n in (None, 2, 4, 5)),
    SamplingOptions(steps=10, guidance=1.5, cache_interval=None),
    *(SamplingOptions(steps=n, guidance=1.5, cache_interval=None, sampler="dpm++2m") for n in (20, 10, 6)),
    SamplingOptions(steps=10, guidance=1.5, cache_interval=3, sampler="dpm++2m"),
    SamplingOptions(steps=6, guidance=1.5, cache_interval=2, sampler="dpm++2m"),
    SamplingOptions(steps=4, guidance=1.5, cache_interval=None),
    *(SamplingOptions(steps=n, guidance=1.5, cache_interval=None, sampler="ddim-trailing") for n in (4, 2, 1)),
)


def write_inputs(folder: Path, seeds: range) -> None:
    """Videos, other voices and truths of these identities."""
    folder.mkdir(exist_ok=True)
    for seed in seeds:
        clip = tiny_clip(seed, FRAMES)
        said = render_truth(clip, speech(FRAMES / 25, seed + 500_000), FRAMES)
        write_clip(folder / f"{seed}.mp4", iter(clip.frames), sound=clip.samples, crf=1)
        write_clip(folder / f"{seed}-truth.mp4", iter(said.frames), crf=1)
        write_wav(folder / f"{seed}.wav", said.samples)


def bundles(folder: Path, write: Callable[[Path], Path], names: list[str]) -> Iterator[tuple[str, Path]]:
    """A checkpoint's bundles, fp32 first: int8 and fp8 calibrated on faces that the table does not use.

    write : writes the checkpoint into a folder; names : precisions, as in `_PRECISIONS`.
    """
    folder.mkdir(exist_ok=True)
    checkpoint = folder / "checkpoint"
    if not checkpoint.exists():
        write(checkpoint)
    for name in dict.fromkeys(["fp32", *names]):
        made, (precision, *target) = folder / name.replace(" ", "-"), name.split()
        if not made.exists():
            quantized = ["--calibration", str(calibration(folder))] if precision in ("int8", "fp8") else []
            quantized += [option for cosine in target for option in ("--unet-cosine", cosine)]
            lsx("export", str(checkpoint), "-o", str(made), "--precision", precision, "--no-build", *quantized)
        yield name, made


def calibration(folder: Path) -> Path:
    """The store of the checkpoint in `folder`, over faces of its own."""
    store, clips = folder / "calibration", folder / "clips"
    if not store.exists():
        clips.mkdir(exist_ok=True)
        for seed in range(FIRST + 100, FIRST + 104):
            clip = tiny_clip(seed, 2 * FRAMES)
            write_clip(clips / f"{seed}.mp4", iter(clip.frames), sound=clip.samples, crf=1)
        lsx("calibrate", str(folder / "fp32"), "--clips", str(clips), "--samples", "8", "-o", str(store))
    return store


def rows(name: str, bundle: Bundle, settings: tuple[SamplingOptions, ...], clips: list[JudgedClip]) -> Iterator[str]:
    """A line of the table for each setting, the engines loaded once."""
    with opened_engines(bundle, "onnxruntime", LOOP_GRAPHS, EngineOptions()) as engines:
        executors = executor_cache_for(engines, bundle.model)
        for options in settings:
            yield f"| {name} {row(executors, bundle, options, clips)}"
        executors.close()


def row(executors: ExecutorCache, bundle: Bundle, options: SamplingOptions, clips: list[JudgedClip]) -> str:
    """One line of the table: a chunk's evaluations and seconds; the clips' correlation, lag and PSNR."""
    started = time.perf_counter()
    lips = [clip.verdict(executors, bundle, options).lips for clip in clips]
    seconds = (time.perf_counter() - started) / sum(len(clip.chunks) for clip in clips)
    known = [one for one in lips if one is not None]
    correlations = np.array([one.correlation for one in known])
    lag, psnr = max(abs(one.lag) for one in known), np.mean([one.psnr for one in known])
    cache = options.cache_interval or "off"
    setting = f"{options.sampler} | {options.steps} | {cache}"
    figures = f"{correlations.mean():.3f} | {correlations.min():.3f} | {lag} | {psnr:.2f}"
    return f"| {setting} | {evaluations(options)} | {seconds:.2f} | {figures} |"


def evaluations(options: SamplingOptions) -> str:
    """Evaluations of the U-Net in a chunk: whole ones, and shallow ones."""
    whole = -(-options.steps // (options.cache_interval or 1))
    counts = [options.guidance_batch * count for count in (whole, options.steps - whole)]
    return f"{counts[0]} + {counts[1]} shallow" if counts[1] else str(counts[0])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--precisions", default=",".join(_PRECISIONS), help="of lsx-tiny, with commas")
    parser.add_argument("--students", type=Path, help="students of make distill-tiny, in place of the committed one")
    parser.add_argument("--also", action="append", default=[], help="NAME=CHECKPOINT, in fp16; may be repeated")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    inputs, seeds = given.folder / "inputs", range(FIRST, FIRST + given.clips)
    write_inputs(inputs, seeds)
    made = {"lsx-tiny": bundles(given.folder / "teacher", tiny_checkpoint, given.precisions.split(","))}
    for name, write in students(given.students).items():
        precisions = ["fp16", "int8"] if name == f"student {KEPT}" else ["fp16"]
        made[name] = bundles(given.folder / name.replace(" ", "-"), write, precisions)
    for name, _, path in (one.partition("=") for one in given.also):
        made[name] = bundles(given.folder / name.replace(" ", "-"), partial(shutil.copytree, path), ["fp16"])
    opened = {(model, name): Bundle.open(path) for model, found in made.items() for name, path in found}
    files = [(inputs / f"{s}.mp4", inputs / f"{s}.wav", inputs / f"{s}-truth.mp4") for s in seeds]
    plain = opened["lsx-tiny", "fp32"]
    clips = [judged_clip(plain, video, voice, truth=truth) for video, voice, truth in files]
    print(json.dumps({"clips": len(clips), "frames": FRAMES * len(clips)}))
    print(f"| {' | '.join(_HEAD)} |\n|{'---|' * len(_HEAD)}")
    for (model, name), bundle in opened.items():
        for line in rows(f"{model} | {name}", bundle, settings(bundle, whole=(model, name) == _WHOLE), clips):
            print(line, flush=True)


def settings(bundle: Bundle, *, whole: bool) -> tuple[SamplingOptions, ...]:
    """What a bundle is measured at: a student as it was made to be, and with DeepCache; `whole`, at all settings."""
    if bundle.manifest.student is None:
        return (RELEASED, *OTHERS) if whole else (RELEASED,)
    own = bundle.sampling
    return (own, replace(own, cache_interval=2)) if own.steps > 1 else (own,)


def students(folder: Path | None) -> dict[str, Callable[[Path], Path]]:
    """What writes each student's checkpoint, by name: those in `folder`, or the committed one."""
    if folder is None:
        return {f"student {KEPT}": student_checkpoint}
    found = {steps: folder / f"{steps}-steps" for steps in (KEPT, 2, 1)}
    return {f"student {steps}": partial(shutil.copytree, path) for steps, path in found.items()}


if __name__ == "__main__":
    main()
