"""Where the sound of a tiny clip is heard: at its place in a longer recording, frame by frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from examples.tiny.dataset import fill_tokens
from lsx.models.reference import audio_states
from lsx.training.feature_store import TokenStore
from tests.training_data import tiny_data


class Loudness(torch.nn.Module):
    """In the audio encoder's place: the mean of two mel columns, and where in the 30 s they lie."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        loud = mel.mean(1).unflatten(1, (-1, 2)).mean(2)
        return torch.stack([loud, torch.arange(1500.0).expand_as(loud)], dim=-1)[:, :, None]


def test_a_clip_is_heard_within_a_longer_recording(tmp_path: Path) -> None:
    data, store = tiny_data(tmp_path / "data", seeds=range(4)), TokenStore(tmp_path / "tokens")
    encoder: Any = Loudness()
    fill_tokens(data, store, encoder)
    starts = []
    for row in data.rows:
        kept = store.read(row.key)
        assert kept.shape == (2 * row.frames, 1, 2)
        alone = audio_states(encoder, torch.from_numpy(data.samples(row).astype(np.float32) / 32768)).numpy()
        # loudness goes up and down alike; its scale depends on the loudest of the whole recording
        assert np.corrcoef(kept[4:-4, 0, 0], alone[4:-4, 0, 0])[0, 1] > 0.97
        assert np.array_equal(np.diff(kept[:, 0, 1]), np.ones(2 * row.frames - 1))
        starts.append(kept[0, 0, 1])
    assert len(set(starts)) > 2
    assert all(start % 2 == 0 for start in starts)
    before = [store.read(row.key).tobytes() for row in data.rows]
    fill_tokens(data, TokenStore(tmp_path / "again"), encoder)
    assert before == [TokenStore(tmp_path / "again").read(row.key).tobytes() for row in data.rows]
