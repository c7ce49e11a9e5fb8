"""What files of tests share: a bundle that is opened once a file, clips and sounds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from examples.synthetic_clip import speech, write_clip, write_wav
from lsx import LipSync
from lsx.bundle.bundle import Bundle
from lsx.core.tensors import Precision
from tests.marked_clip import RATE, marked
from tests.written_clip import write_media


@pytest.fixture(scope="module")
def lipsync(bundle: Callable[[Precision, int], Bundle]) -> Iterator[LipSync]:
    """The small model at 64 px."""
    with LipSync.open(bundle("fp32", 64), "onnxruntime", threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames whose number stands in their corner."""
    return write_clip(tmp_path_factory.mktemp("clip") / "c.mp4", iter(marked()), crf=1)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """18 frames of speech at 44.1 kHz; its first sample is the loudest."""
    samples = speech(18 / 25, RATE)
    samples[0] = 32000
    return write_wav(tmp_path_factory.mktemp("sound") / "s.wav", samples, RATE)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clip.mp4 and sound.wav."""
    return write_media(tmp_path_factory.mktemp("media"))
