"""What the samples of a video mean, as its tags say, and RGB frames made into such samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation

from lsx.core.tensors import Frame

__all__ = ["BT709", "EXACT", "ColourTags"]

EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
"""How colours are converted: to RGB and back leaves luma as it was; FFmpeg's default darkens it by a level."""

_UNSPECIFIED = 2  # in FFmpeg's enumerations of colour spaces, primaries and transfer characteristics


@dataclass(frozen=True, slots=True, kw_only=True)
class ColourTags:
    """How a stream's samples mean colours: FFmpeg's numbers, as tagged in the file."""

    space: int = _UNSPECIFIED
    range: int = 0
    primaries: int = _UNSPECIFIED
    transfer: int = _UNSPECIFIED

    @property
    def matrix(self) -> int:
        """The matrix to convert with: the tagged one, BT.601 where none is tagged (FFmpeg's own default)."""
        return self.space if self.space in (1, 4, 5, 6, 7, 9) else 5

    @property
    def levels(self) -> int:
        """The range to convert with: the tagged one, limited (MPEG) where none is."""
        return self.range or 1

    def tag(self, context: Any) -> None:
        """Have an encoder that is not open yet write these."""
        context.color_range = self.levels
        context.colorspace = self.space if self.space else _UNSPECIFIED
        context.color_primaries = self.primaries
        context.color_trc = self.transfer

    def picture(self, frame: Frame, pix_fmt: str) -> Any:
        """A frame uint8 [H, W, 3] RGB as a picture for such an encoder."""
        picture: Any = av.VideoFrame.from_numpy_buffer(np.ascontiguousarray(frame), format="rgb24")  # not copied
        return picture.reformat(
            format=pix_fmt,
            src_color_range=2,
            dst_colorspace=self.matrix,
            dst_color_range=self.levels,
            interpolation=EXACT,
        )


BT709 = ColourTags(space=1, range=1, primaries=1, transfer=1)
"""What frames are written with that come without tags."""
