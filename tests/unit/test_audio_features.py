"""Rows of a long sound: the right ones, and heard with what is around them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lsx.core.footage import AudioContext
from lsx.core.model_spec import ModelSpec
from lsx.runtime.audio_features import AudioTokens, LogMel

SECONDS = 95
RNG = np.random.default_rng(0)
SAMPLES = (3000 * RNG.standard_normal(16000 * SECONDS) * np.sin(np.arange(16000 * SECONDS) / 9000)).astype(np.int16)


class _Encoder:
    """States of 2 x 1: the mel's first band at the row, and the row's place in what was heard."""

    def __init__(self) -> None:
        self.calls = 0

    def infer(self, feeds: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        self.calls += 1
        mel = feeds["mel"][0]
        states = np.stack([mel[0, ::2], np.arange(1500, dtype=np.float32)], axis=1)
        return {"hidden_states": states[None, :, :, None]}


def _tokens(context: AudioContext) -> tuple[Any, _Encoder]:
    encoder = _Encoder()
    model = ModelSpec(version="latentsync-1.5", resolution=64, audio_states=2, audio_dim=1)
    return AudioTokens(encoder, SAMPLES, model, context=context), encoder  # type: ignore[arg-type]


@pytest.mark.parametrize("context", ["exact", "smooth"])
def test_each_row_is_its_own_moment(context: AudioContext) -> None:
    tokens, encoder = _tokens(context)
    rows = range(tokens.rows)
    found = tokens.features(rows)[:, 0, 0]
    mel = LogMel(SAMPLES)
    whole = np.concatenate([mel.segment(start)[0] for start in range(0, mel.columns, 3000)])
    assert np.allclose(found, whole[: 2 * tokens.rows : 2], atol=1e-6)
    assert context == "smooth" or np.array_equal(found, whole[: 2 * tokens.rows : 2])
    assert encoder.calls == (4 if context == "exact" else 7)
    assert np.array_equal(tokens.features([-3, 10**6])[:, 0, 0], found[[0, -1]])


def test_smooth_hears_as_much_before_as_after() -> None:
    exact, smooth = (_tokens(context)[0].features(range(4000))[:, 1, 0] for context in ("exact", "smooth"))
    assert np.array_equal(exact, np.arange(4000) % 1500)
    assert np.array_equal(smooth[:725], np.arange(725))
    for border in range(750, 4000, 750):  # between them the middle of a window
        assert np.array_equal(smooth[border + 25 : border + 725], np.arange(400, 1100)[: 4000 - border - 25])
    # Around a border one leads to the other: no step is larger than a fiftieth of the way.
    assert np.abs(np.diff(smooth)).max() <= 751 / 50 + 1
    assert np.abs(np.diff(exact)).max() == 1499
