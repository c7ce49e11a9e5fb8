"""The main job from nothing: a checkpoint, a bundle, a talking face, the same face saying something else, side by side.

The model is lsx-tiny, which this repository trained on faces that it draws itself (`make tiny`); so what the face ought
to look like is known, and shown beside the result.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from examples.commands import lsx
from examples.synthetic_clip import write_clip, write_wav
from examples.tiny.checkpoint import tiny_checkpoint
from examples.tiny.clips import render_truth, tiny_clip
from examples.tiny.dataset import HELD_OUT
from examples.tiny.strip import strip_of_files
from examples.tiny.voice import speech

FRAMES = 64
SEED = HELD_OUT + 103


def main(folder: Path) -> None:
    """Make everything under `folder`; what is there already is used again."""
    started = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, bundle = folder / "checkpoint", folder / "bundle"
    video, sound, truth = folder / "video.mp4", folder / "speech.wav", folder / "truth.mp4"
    result, side, strip = folder / "result.mp4", folder / "side-by-side.mp4", folder / "strip.png"
    if not checkpoint.exists():
        tiny_checkpoint(checkpoint)
    if not bundle.exists():
        lsx("export", str(checkpoint), "-o", str(bundle), "--precision", "fp32", "--no-build")
    clip = tiny_clip(SEED, FRAMES)
    said = render_truth(clip, speech(FRAMES / 25, SEED + 1), FRAMES)
    write_clip(video, iter(clip.frames), sound=clip.samples)
    write_clip(truth, iter(said.frames), sound=said.samples)
    write_wav(sound, said.samples)
    lsx("run", str(bundle), str(video), str(sound), "-o", str(result), "--compare", str(side))
    strip_of_files(video, result, truth, strip)
    print(f"\ndone in {time.perf_counter() - started:.0f} s")
    shown = {"bundle": bundle, "video": video, "result": result, "what it ought to be": truth, "side by side": side}
    for name, path in (shown | {"strip": strip}).items():
        print(f"{name}: {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
