"""Your own face detector and sound, frame by frame: python examples/06_custom_detector.py BUNDLE VIDEO AUDIO."""

import sys

import numpy as np
from numpy.typing import NDArray

from lsx import Face, LipSync, SoundReader, VideoReader


def detector(frame: NDArray[np.uint8]) -> Face | None:
    """Three points, (x, y) in pixels: the middles of both brows, and of the nose. None where there is no face.

    This one believes that the face never moves, as in a video call; put your network here.
    """
    height, width = frame.shape[:2]
    if frame.mean() < 5:  # a black frame passes through unchanged
        return None
    return Face(points=np.array([[0.43, 0.36], [0.57, 0.36], [0.5, 0.52]]) * [width, height])


def main(bundle: str, video: str, audio: str) -> None:
    """Take the frames as they come; closing the stream ends the run."""
    samples = SoundReader(audio).samples()
    with (
        LipSync.open(bundle, threads=2) as lipsync,
        lipsync.stream(VideoReader(video).frames(), samples, steps=2, detector=detector) as stream,
    ):
        for number, frame in enumerate(stream):
            print(f"frame {number}: {frame.shape[1]} x {frame.shape[0]}, mean level {frame.mean():.1f}")


if __name__ == "__main__":
    main(*sys.argv[1:4])
