"""A frame of a live talker, and what the first of an utterance took."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lsx.core.clock import FPS
from lsx.core.tensors import Frame

__all__ = ["Latency", "LiveFrame"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LiveFrame:
    """One frame of a talker, and the sound that goes with it.

    Examples
    --------
    >>> from lsx import prepare_avatar
    >>> avatar = prepare_avatar(BUNDLE, VIDEO, "anna.avatar")
    >>> with LipSync.open(BUNDLE, threads=1) as lipsync, lipsync.live(avatar, steps=1) as talker:
    ...     frame = talker.take()
    >>> frame.number, frame.seconds, frame.speaking
    (0, 0.0, False)
    """

    number: int
    """Frames of this talker before it."""
    image: Frame
    """uint8 [H, W, 3] RGB. Not to be painted on."""
    samples: NDArray[np.int16]
    """Its 40 ms of sound, int16 [640], mono at 16 kHz; silence where nothing is said."""
    speaking: bool
    """Whether the avatar says something in it."""
    utterance: int | None = None
    """Number of the utterance that it is of, from 0 on."""
    last: bool = False
    """Whether it is its utterance's last."""

    @property
    def seconds(self) -> float:
        """Its time since the talker's first frame.

        Examples
        --------
        >>> import numpy as np
        >>> from lsx import LiveFrame
        >>> silence = np.zeros(640, np.int16)
        >>> LiveFrame(number=25, image=np.zeros((2, 2, 3), np.uint8), samples=silence, speaking=False).seconds
        1.0
        """
        return self.number / FPS


class Latency(NamedTuple):
    """What the first frame of an utterance took."""

    total: float
    """Seconds from its first chunk's sound being complete to the frame being taken."""
    computing: float
    """Seconds of these that the chunk's tokens and engines ran."""
    waited: float
    """Seconds of these until other runs' chunks let it begin."""
