"""A video and a sound to a lip-synced video: python examples/02_python_api.py BUNDLE VIDEO AUDIO OUT.mp4."""

import sys

from lsx import FaceNotFound, LipSync, Progress, SamplingOptions


def show(now: Progress) -> None:
    """Called from the thread that called `run`."""
    left = "" if now.seconds_left is None else f", {now.seconds_left:.0f} s left"
    print(f"\r{now.frames} of {now.total} frames, step {now.step} of {now.steps}{left}", end="", file=sys.stderr)


def main(bundle: str, video: str, audio: str, output: str) -> None:
    """Open once, run as often as wanted: loading and preparing is most of a short clip's time."""
    sampling = SamplingOptions(steps=4, guidance=1.5, seed=7)
    with LipSync.open(bundle, "auto") as lipsync:
        lipsync.warm_up(sampling)
        try:
            report = lipsync.run(video, audio, output, sampling, progress=show)
        except FaceNotFound as error:
            raise SystemExit(f"nothing to do: {error}") from error
    print(f"\n{report.frames} frames in {report.seconds:.1f} s; the bottleneck is {report.bottleneck}")


if __name__ == "__main__":
    main(*sys.argv[1:5])
