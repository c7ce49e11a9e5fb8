"""The sound as StableSyncNet hears it: whole or in parts, against filters of another maker."""

from __future__ import annotations

import numpy as np
import pytest
from transformers.audio_utils import mel_filter_bank

from lsx.core.mel import mel_filters
from lsx.core.sync_mel import SyncMel, mel_window, syncnet_mel


@pytest.mark.parametrize(("window", "low", "high"), [(400, 0.0, 8000.0), (800, 55.0, 7600.0)])
def test_filters_are_those_of_transformers(window: int, low: float, high: float) -> None:
    theirs = mel_filter_bank(window // 2 + 1, 80, low, high, 16000, norm="slaney", mel_scale="slaney")
    assert np.allclose(mel_filters(window, low, high), theirs.T, rtol=1e-9, atol=1e-15)


def test_a_window_is_that_of_the_whole() -> None:
    samples = (np.random.default_rng(0).standard_normal(48000) * 3000).astype(np.int16)
    whole = syncnet_mel(samples.astype(np.float32) / 32768)
    assert whole.shape == (80, 241)
    mel = SyncMel(samples)
    for frame in (0, 1, 17, 50):
        assert np.allclose(mel.window(frame), mel_window(whole, frame), atol=1e-6)
    # after the sound, and before it, nothing is heard
    assert (mel.window(200) == -4).all()
    assert (mel.window(-60) == -4).all()
    assert np.allclose(mel.window(-5)[:, 16:], whole[:, :36], atol=1e-6)
