"""Tiny faces as a data set for training: python -m examples.tiny.dataset BUNDLE OUT --clips 600."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from examples.tiny.clips import TinyClip, tiny_clip
from examples.tiny.mouth import FRAME_SAMPLES
from examples.tiny.voice import SAMPLE_RATE, speech
from lsx.bundle.bundle import Bundle
from lsx.faces.alignment import Aligner, crop_face
from lsx.faces.detector import opened_detector
from lsx.models.reference import audio_states
from lsx.models.whisper import AudioEncoder
from lsx.training.feature_store import TokenStore
from lsx.training.shards import DataSet, EncodedSegment, SegmentMeta, ShardWriter, encode_segment

__all__ = ["HELD_OUT", "RESOLUTION", "aligned_faces", "fill_tokens", "write_dataset"]

HELD_OUT = 1_000_000
"""Seeds from here on are never trained on."""
FRAMES = 64
RESOLUTION = 128
_HEARD = 30 * SAMPLE_RATE // FRAME_SAMPLES  # frames of the sound that the audio encoder hears at once


def aligned_faces(clip: TinyClip, bundle: Path, resolution: int = RESOLUTION) -> NDArray[np.uint8] | None:
    """The clip's faces as the runtime aligns them: uint8 [n, resolution, resolution, 3]; None where none is found.

    The detector looks at the first frame alone: where it sees brows and nose there, against where they were drawn,
    holds for the whole clip.
    """
    with opened_detector(Bundle.open(bundle)) as detector:
        found = detector(clip.frames[0])
    if found is None:
        return None
    points = clip.points + (found.points - clip.points[0])
    aligner = Aligner(resolution)
    crops = [crop_face(f, aligner.affine(p), resolution) for f, p in zip(clip.frames, points, strict=True)]
    return np.stack(crops)


def _segment(seed: int, *, bundle: Path, frames: int) -> EncodedSegment | None:
    clip = tiny_clip(seed, frames)
    faces = aligned_faces(clip, bundle)
    if faces is None:
        return None
    meta = SegmentMeta(source=f"seed {seed}", sha256="")
    return encode_segment(f"{seed:07d}", faces, clip.samples, meta, resolution=RESOLUTION, quality="lossless")


def write_dataset(
    bundle: Path,
    output: Path,
    seeds: range,
    *,
    frames: int = FRAMES,
    processes: int = 2,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> None:
    """Write a data set of the tiny faces of `seeds`, by `processes` processes; the same bytes for any number.

    bundle : any, for its face detector.
    """
    work = partial(_segment, bundle=bundle, frames=frames)
    with ShardWriter(output, resolution=RESOLUTION) as writer, ProcessPoolExecutor(processes) as pool:
        done = 0
        for batch in _batches(seeds, 4 * processes):
            for segment in pool.map(work, batch):
                done += 1
                progress(done, len(seeds))
                if segment is not None:
                    writer.add_encoded(segment)


def fill_tokens(data: DataSet, store: TokenStore, encoder: AudioEncoder) -> None:
    """Keep what the audio encoder makes of each clip's sound at some place of a longer recording.

    A clip lasts 2.6 s. By itself it would lie at the beginning of the 30 s that the encoder hears at once, with silence
    after it, and a network would learn the sound of no other place.
    """
    for row in store.missing(data.rows):
        rng = np.random.default_rng((int(row.key), 0xC0DE))
        before, after = rng.integers(0, _HEARD - row.frames, 2)
        before = 0 if rng.random() < 0.25 else before
        after = min(int(after), _HEARD - row.frames - int(before))
        sides = [speech(n * FRAME_SAMPLES / SAMPLE_RATE, int(rng.integers(1 << 31))) for n in (before, after)]
        heard = np.concatenate([sides[0], data.samples(row), sides[1]]).astype(np.float32) / 32768
        states = audio_states(encoder, torch.from_numpy(heard))
        store.write(row.key, states[2 * before : 2 * (before + row.frames)].numpy())


def _batches(seeds: range, size: int) -> Iterator[list[int]]:
    numbers = iter(seeds)
    while batch := list(islice(numbers, size)):
        yield batch


def main() -> None:
    """Write the data set that the arguments describe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--clips", type=int, default=600)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--frames", type=int, default=FRAMES)
    given = parser.parse_args()

    def show(done: int, total: int) -> None:
        if done % 50 == 0 or done == total:
            print(f"{done} of {total} clips", flush=True)

    seeds = range(given.first, given.first + given.clips)
    write_dataset(given.bundle, given.output, seeds, frames=given.frames, progress=show)


if __name__ == "__main__":
    main()
