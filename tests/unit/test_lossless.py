"""Frames to a file without loss: every value of every pixel comes back, at its time."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from lsx.core.clock import FrameClock
from lsx.errors import OutputError
from lsx.media.lossless import LosslessWriter

SIZE = (37, 22)


def noise(count: int) -> list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8) for _ in range(count)]


@pytest.mark.parametrize(
    ("clock", "milliseconds"),
    [
        (FrameClock.at_rate(25), [0, 40, 80, 120]),
        (FrameClock.at_rate(Fraction(30000, 1001)), [0, 33, 67, 100]),
        (FrameClock(Fraction(1, 1000), np.array([0, 40, 73, 140, 150], np.int64)), [0, 40, 73, 140]),
    ],
    ids=["25", "29.97", "uneven"],
)
def test_every_value_comes_back_at_its_time(tmp_path: Path, clock: FrameClock, milliseconds: list[int]) -> None:
    frames = noise(4)
    with LosslessWriter(tmp_path / "frames.mkv", SIZE, clock) as writer:
        for frame in frames:
            writer.write(frame)
    with av.open(str(tmp_path / "frames.mkv")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "ffv1"
        decoded = list(container.decode(stream))
    assert all(picture.key_frame for picture in decoded)
    assert [round(1000 * (picture.time or 0)) for picture in decoded] == milliseconds
    for picture, frame in zip(decoded, frames, strict=True):
        np.testing.assert_array_equal(picture.to_ndarray(format="rgb24"), frame)


def test_a_folder_that_is_not_there_is_an_output_error(tmp_path: Path) -> None:
    writer = LosslessWriter(tmp_path / "none" / "frames.mkv", SIZE, FrameClock.at_rate(25))
    with pytest.raises(OutputError, match=r"frames\.mkv"):
        list(map(writer.write, noise(3)))


def test_an_error_within_the_block_is_not_hidden(tmp_path: Path) -> None:
    def interrupted() -> None:
        with LosslessWriter(tmp_path / "frames.mkv", SIZE, FrameClock.at_rate(25)) as writer:
            writer.write(noise(1)[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
