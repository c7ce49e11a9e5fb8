"""How sharp a face is."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from lsx.core.tensors import Frame

__all__ = ["grey_face", "sharpness_of"]

_EDGE = 256  # pixels at which larger faces are judged


def grey_face(face: Frame) -> NDArray[np.uint8]:
    """A face uint8 [R, R, 3] RGB in grey, at 256 pixels where it is larger."""
    grey = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)
    if grey.shape[0] > _EDGE:
        grey = cv2.resize(grey, (_EDGE, _EDGE), interpolation=cv2.INTER_AREA)
    return np.asarray(grey, dtype=np.uint8)


def sharpness_of(faces: Frame) -> float:
    """Median over faces uint8 [n, R, R, 3] of the variance of the Laplacian of the grey face,
    at 256 pixels where it is larger.

    A clear face of a compressed video has about 20, one enlarged from 64 pixels 5, one blurred by 2 pixels 3.
    """
    return float(np.median([cv2.Laplacian(grey_face(face), cv2.CV_32F).var() for face in faces]))
