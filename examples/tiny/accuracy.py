"""What precisions, DeepCache and samplers cost in lips, on lsx-tiny: python -m examples.tiny.accuracy FOLDER.

Prints the table of docs/accuracy.md. Each setting dubs the same clips, whose truth is known, with the same noise.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from examples.commands import lsx
from examples.synthetic_clip import write_clip, write_wav
from examples.tiny.checkpoint import tiny_checkpoint
from examples.tiny.clips import render_truth, tiny_clip
from examples.tiny.dataset import HELD_OUT
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
_TARGETS = ("0.995", "0.9995")  # cosines of int8's U-Net, beside the default: layers stay fp16 until one is reached
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


def bundles(folder: Path) -> Iterator[tuple[str, Path]]:
    """lsx-tiny in every precision: int8 and fp8 calibrated on faces that the table does not use."""
    checkpoint, store, clips = folder / "checkpoint", folder / "calibration", folder / "clips"
    tiny_checkpoint(checkpoint)
    for precision in ("fp32", "fp16"):
        made = folder / precision
        if not made.exists():
            lsx("export", str(checkpoint), "-o", str(made), "--precision", precision, "--no-build")
        yield precision, made
    if not store.exists():
        clips.mkdir(exist_ok=True)
        for seed in range(FIRST + 100, FIRST + 104):
            clip = tiny_clip(seed, 2 * FRAMES)
            write_clip(clips / f"{seed}.mp4", iter(clip.frames), sound=clip.samples, crf=1)
        lsx("calibrate", str(folder / "fp32"), "--clips", str(clips), "--samples", "8", "-o", str(store))
    others = [(f"int8 {target}", ["--unet-cosine", target]) for target in _TARGETS]
    for name, more in (("int8", []), *others, ("fp8", [])):
        made = folder / name.replace(" ", "-")
        if not made.exists():
            searched = ["--precision", name.split()[0], "--calibration", str(store), "--no-build", *more]
            lsx("export", str(checkpoint), "-o", str(made), *searched)
        yield name, made


def rows(name: str, bundle: Bundle, settings: tuple[SamplingOptions, ...], clips: list[JudgedClip]) -> Iterator[str]:
    """A line of the table for each setting, the engines loaded once."""
    with opened_engines(bundle, "onnxruntime", LOOP_GRAPHS, EngineOptions()) as engines:
        executors = executor_cache_for(engines, bundle.model)
        for options in settings:
            yield f"| {name} {row(executors, bundle, options, clips)}"
        executors.close()


def row(executors: ExecutorCache, bundle: Bundle, options: SamplingOptions, clips: list[JudgedClip]) -> str:
    """One line of the table: mean and worst correlation, lag, PSNR over the clips."""
    lips = [clip.verdict(executors, bundle, options).lips for clip in clips]
    known = [one for one in lips if one is not None]
    correlations = np.array([one.correlation for one in known])
    lag, psnr = max(abs(one.lag) for one in known), np.mean([one.psnr for one in known])
    cache = options.cache_interval or "off"
    setting = f"{options.sampler} | {options.steps} | {cache}"
    return f"| {setting} | {correlations.mean():.3f} | {correlations.min():.3f} | {lag} | {psnr:.2f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=4)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    inputs, seeds = given.folder / "inputs", range(FIRST, FIRST + given.clips)
    write_inputs(inputs, seeds)
    opened = {name: Bundle.open(path) for name, path in bundles(given.folder)}
    files = [(inputs / f"{s}.mp4", inputs / f"{s}.wav", inputs / f"{s}-truth.mp4") for s in seeds]
    clips = [judged_clip(opened["fp32"], video, voice, truth=truth) for video, voice, truth in files]
    print(json.dumps({"clips": len(clips), "frames": FRAMES * len(clips)}))
    print("| precision | sampler | steps | DeepCache | correlation, mean | at worst | lag, frames | mouth PSNR, dB |")
    print("|---|---|---|---|---|---|---|---|")
    for precision, bundle in opened.items():
        for line in rows(precision, bundle, (RELEASED, *(OTHERS if precision == "fp16" else ())), clips):
            print(line, flush=True)


if __name__ == "__main__":
    main()
