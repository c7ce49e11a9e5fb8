"""What chunks made, put back into the frames: mixed where chunks overlap, the farthest face first."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from lsx.core.tensors import Frame
from lsx.faces.compositing import Compositor
from lsx.faces.retouch import Retouch
from lsx.runtime.chunker import Chunk
from lsx.runtime.face_aligner import AlignedFrame
from lsx.runtime.face_choice import Slot
from lsx.runtime.run_state import MadeFace
from lsx.runtime.seams import SeamMeter

__all__ = ["FramePaster"]


@dataclass(slots=True, eq=False)
class FramePaster:
    """Pastes the faces of chunks into frames. The chunks come in order; a frame is finished after its last."""

    seams: SeamMeter
    retouch: Retouch
    compositor: Compositor
    made: dict[int, dict[Slot, MadeFace]] = field(default_factory=dict)
    """Faces of the frames that are not finished, by output frame."""

    def add(self, chunk: Chunk) -> None:
        """Take what a chunk made, each frame for what it counts there."""
        if chunk.pixels is None:
            return
        for position in chunk.kept:
            item, weight = chunk.items[position], chunk.weights[position]
            if chunk.slot not in item.faces:
                continue
            layers = self.made.setdefault(item.index, {})
            share = chunk.part.share(item.index)
            if weight == 1:
                layers[chunk.slot] = MadeFace(chunk.pixels[position], share, chunk.number)
                continue
            pixels = weight * chunk.pixels[position].astype(np.float32)
            if (before := layers.get(chunk.slot)) is not None:
                pixels += before.pixels
            layers[chunk.slot] = MadeFace(pixels, share, None)

    def finish(self, item: AlignedFrame, *, owned: bool) -> tuple[Frame, Frame]:
        """(result, original) of the next frame; the same array where nothing changed.

        owned : whether the frame may be painted on; otherwise it is copied first.
        """
        layers = self.made.pop(item.index, {})
        self.seams.add({slot: (made.pixels, made.chunk) for slot, made in layers.items()})
        visible = [slot for slot, made in layers.items() if made.share]
        if not visible:
            return item.frame, item.frame
        result = item.frame if owned else item.frame.copy()
        for slot in sorted(visible, key=lambda slot: _height(item, slot)):
            made = layers[slot]
            aligned = item.faces[slot]
            self.compositor.paste(result, self.retouch(made.pixels, aligned.crop), aligned.affine, made.share)
        return result, item.frame


def _height(item: AlignedFrame, slot: Slot) -> tuple[float, Slot]:
    """The height of a face in the frame, by which faces are ordered: the smaller, the farther away."""
    affine = item.faces[slot].affine
    return 1 / float(np.hypot(affine[0, 0], affine[0, 1])), slot
