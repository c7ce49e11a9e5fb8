"""Tiny faces under the face models that bundles hold, and their voices under a Whisper encoder of random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from examples.tiny.clips import motion
from examples.tiny.face import Identity, points, render
from examples.tiny.readout import readout
from lsx.bundle.bundle import Bundle
from lsx.core.tensors import Precision
from lsx.faces.detector import opened_detector
from lsx.models.checkpoint import Checkpoint
from lsx.models.checkpoint_files import CheckpointFiles


def test_every_tiny_face_is_found_where_it_is(bundle: Callable[[Precision, int], Bundle]) -> None:
    """Shut and wide open, of 16 identities in their poses: the three points lie near where they are drawn."""
    away = []
    with opened_detector(bundle("fp32", 64)) as detector:
        for seed in range(100, 116):
            identity, pose = Identity.from_seed(seed), motion(seed, 30)[seed % 30]
            for opening in (0.0, 1.0):
                face = detector(render(identity, opening, 0.5, pose))
                assert face is not None
                away.append(face.points - points(identity, pose, (256, 256)))
    far = np.abs(away).max(axis=(1, 2))  # of whole pixels that a detector gives, in faces of 140
    assert far.max() < 6
    assert np.quantile(far, 0.9) < 3.5
    assert np.abs(np.mean(away, axis=0)).max() < 1.2


def test_the_mouth_can_be_read_from_the_tokens(checkpoint: Callable[[int], Path]) -> None:
    """A linear readout of random Whisper's tokens, fitted to 8 voices, tells the opening of 3 others."""
    encoder = Checkpoint(CheckpointFiles.in_folder(checkpoint(128))).audio_encoder()
    opening, width = readout(encoder, range(8), range(2000, 2003))
    assert min(opening) > 0.9
    assert min(width) > 0.75
