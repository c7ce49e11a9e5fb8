"""Sound and faces of a data set in step: what SyncNet says is shifted, streams that start apart are put together."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from lsx.media.video_reader import VideoReader
from lsx.metrics.syncnet import SyncFigures
from lsx.training.sound_offset import VideoSound, corrected
from tests.seeded_inputs import waveform


class _PlantedSyncNet:
    """Hears by how many frames a ramp comes early: sample n of the video's sound is n / 640."""

    def __init__(self, early: int, confidence: float = 5.0) -> None:
        self.early, self.confidence = early, confidence

    def judge(self, faces: NDArray[np.uint8], samples: NDArray[np.int16]) -> SyncFigures:
        heard = round(float(np.median(samples - np.arange(len(samples)) // 640)))
        return SyncFigures(confidence=self.confidence, distance=1.0, offset=heard - int(faces[0, 0, 0, 0]) + self.early)


@pytest.mark.parametrize("early", [-3, 0, 2])
def test_the_sound_is_shifted_by_what_syncnet_says(early: int) -> None:
    """The sound of frame 40 must become what was heard `early` frames before it."""
    sound = VideoSound((np.arange(100 * 640) // 640).astype(np.int16), 0)
    faces = np.full((30, 8, 8, 3), 40, np.uint8)
    found = corrected(_PlantedSyncNet(early), faces, sound, 40, 3.0)  # type: ignore[arg-type]
    assert (found.frames, found.reason, found.missing) == (early, None, 0.0)
    assert found.samples[0] == 40 - early
    for confidence in (2.0, float("nan")):
        low = corrected(_PlantedSyncNet(early, confidence), faces, sound, 40, 3.0)  # type: ignore[arg-type]
        assert low.reason == f"sync confidence {confidence:.1f}, under 3"


def test_sound_that_is_not_there_is_zeros() -> None:
    sound = VideoSound(np.ones(10 * 640, np.int16), -640)  # it starts a frame late
    samples, missing = sound.under(0, 12)
    assert samples.tolist() == [0] * 640 + [1] * 6400 + [0] * 640
    assert missing == pytest.approx(2 * 0.04)
    assert sound.under(1, 3, early=0)[1] == 0


def test_streams_that_start_apart_are_put_together(tmp_path: Path) -> None:
    """A file whose sound is stamped 0.4 s after its picture."""
    path = tmp_path / "late.mkv"
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio: Any = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        for index in range(25):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), index, np.uint8), format="rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        part = av.AudioFrame.from_ndarray(waveform(9600)[None], format="s16", layout="mono")
        part.sample_rate, part.pts, part.time_base = 16000, 6400, Fraction(1, 16000)
        container.mux(audio.encode(part))
        container.mux(audio.encode(None))
    sound = VideoSound.of(VideoReader(path))
    assert sound.lead == -6400
    samples, missing = sound.under(0, 25)
    np.testing.assert_array_equal(samples[6400:], waveform(9600))
    assert missing == pytest.approx(0.4)
