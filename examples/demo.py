"""The main job from nothing: a checkpoint, a bundle, a talking face, the same face saying something else, side by side.

The model is lsx-tiny, which this repository trained on faces that it draws itself (`make tiny`); so what the face ought
to look like is known, and shown beside the result. It is run as it was trained, with 20 steps and guidance, and as the
student of 4 steps that was made of it (`make distill-tiny`).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from examples.commands import lsx
from examples.synthetic_clip import write_clip, write_wav
from examples.tiny.checkpoint import tiny_checkpoint
from examples.tiny.clips import render_truth, tiny_clip
from examples.tiny.dataset import HELD_OUT
from examples.tiny.strip import strip_of_files
from examples.tiny.student import student_checkpoint
from examples.tiny.voice import speech

FRAMES = 64
SEED = HELD_OUT + 103


def main(folder: Path) -> None:
    """Make everything under `folder`; what is there already is used again."""
    started = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    video, sound, truth = folder / "video.mp4", folder / "speech.wav", folder / "truth.mp4"
    result, side, strip = folder / "result.mp4", folder / "side-by-side.mp4", folder / "strip.png"
    teacher = exported(folder, "teacher", tiny_checkpoint)
    bundle = exported(folder, "bundle", student_checkpoint)
    clip = tiny_clip(SEED, FRAMES)
    said = render_truth(clip, speech(FRAMES / 25, SEED + 1), FRAMES)
    write_clip(video, iter(clip.frames), sound=clip.samples)
    write_clip(truth, iter(said.frames), sound=said.samples)
    write_wav(sound, said.samples)
    long = seconds_of_run(teacher, video, sound, folder / "teacher.mp4")
    short = seconds_of_run(bundle, video, sound, result, "--compare", str(side))
    strip_of_files(video, result, truth, strip)
    print(f"\n{FRAMES} frames: 20 steps with guidance {long:.1f} s, the student's 4 steps {short:.1f} s")
    print(f"done in {time.perf_counter() - started:.0f} s")
    shown = {"bundle": bundle, "video": video, "result": result, "what it ought to be": truth, "side by side": side}
    for name, path in (shown | {"strip": strip}).items():
        print(f"{name}: {path}")


def exported(folder: Path, name: str, write: Callable[[Path], Path]) -> Path:
    """The bundle of a checkpoint that `write` writes."""
    checkpoint, bundle = folder / f"{name}-checkpoint", folder / name
    if not checkpoint.exists():
        write(checkpoint)
    if not bundle.exists():
        lsx("export", str(checkpoint), "-o", str(bundle), "--precision", "fp32", "--no-build")
    return bundle


def seconds_of_run(bundle: Path, video: Path, sound: Path, result: Path, *more: str) -> float:
    """Dub the video; seconds that it took, by the run's own report."""
    report = result.with_suffix(".json")
    lsx("run", str(bundle), str(video), str(sound), "-o", str(result), "--report", str(report), *more)
    return float(json.loads(report.read_text(encoding="utf-8"))["seconds"])


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
