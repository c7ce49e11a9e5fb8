"""The main job from nothing: random checkpoint, bundle, synthetic clip, lip-synced result, side by side.

The weights are seeded noise, so the mouth is noise: what the demo shows is the path, not the picture.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from examples.synthetic_clip import portrait_frames, speech, write_clip, write_wav

SECONDS = 1.28


def lsx(*arguments: str) -> None:
    """Run the command line as a user would, and show what was typed."""
    print("$ lsx", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "lsx", *arguments], check=True)  # noqa: S603


def main(folder: Path) -> None:
    """Make everything under `folder`; what is there already is used again."""
    started = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, bundle = folder / "checkpoint", folder / "bundle"
    clip, sound = folder / "clip.mp4", folder / "speech.wav"
    result, side = folder / "result.mp4", folder / "side-by-side.mp4"
    if not checkpoint.exists():
        lsx("checkpoint", "random", str(checkpoint), "--size", "small", "--seed", "0")
    if not bundle.exists():
        lsx("export", str(checkpoint), "-o", str(bundle), "--precision", "fp32", "--no-build")
    write_clip(clip, portrait_frames(int(SECONDS * 25)))
    write_wav(sound, speech(SECONDS))
    lsx("run", str(bundle), str(clip), str(sound), "-o", str(result), "--steps", "8", "--compare", str(side))
    print(f"\ndone in {time.perf_counter() - started:.0f} s")
    for name, path in (("bundle", bundle), ("clip", clip), ("result", result), ("side by side", side)):
        print(f"{name}: {path}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
