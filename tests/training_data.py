"""A small data set of tiny faces, cut out by where they were drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from examples.tiny.clips import tiny_clip
from lsx.faces.alignment import Aligner, crop_face
from lsx.training.shards import DataSet, ShardWriter

__all__ = ["tiny_data"]


def tiny_data(folder: Path, *, resolution: int = 64, seeds: range = range(3), frames: int = 50) -> DataSet:
    """A data set in the new folder `folder`, a segment a seed."""
    with ShardWriter(folder, resolution=resolution, samples_per_shard=2) as writer:
        for seed in seeds:
            clip = tiny_clip(seed, frames)
            aligner = Aligner(resolution)
            crops = [
                crop_face(frame, aligner.affine(points), resolution)
                for frame, points in zip(clip.frames, clip.points, strict=True)
            ]
            writer.add(f"{seed:04d}", np.stack(crops), clip.samples)
    return DataSet.open(folder)
