"""One run over frames and samples that a caller gives: its plan, and its stages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass
from os import PathLike
from typing import Any

import numpy as np

from lsx.core.footage import FootageOptions
from lsx.core.keywords import check_callable, check_kind
from lsx.core.sampling import SamplingOptions
from lsx.core.tensors import Frame, described
from lsx.core.threaded_stages import Stage
from lsx.denoising.chunk_runner import NoiseSource
from lsx.errors import UsageError
from lsx.faces.alignment import Face
from lsx.faces.detector import detector_threads
from lsx.runtime.face_aligner import FoundFaces
from lsx.runtime.face_choice import Detector, faces_for, given_faces
from lsx.runtime.loaded_bundle import LoadedBundle
from lsx.runtime.run_plan import plan_for_samples
from lsx.runtime.source_frames import indexed, stream_plan

__all__ = ["FrameRun"]


@dataclass(frozen=True, slots=True, eq=False)
class FrameRun:
    """A run whose options are checked. Parameters as in LipSync.stream."""

    loaded: LoadedBundle
    options: SamplingOptions
    footage: FootageOptions
    _: KW_ONLY
    detector: Detector | None
    noise: NoiseSource | None
    priority: int

    def stages(self, frames: Iterable[Frame], samples: Any, length: int | None) -> list[Stage]:
        """The stages of the run. length : output frames, whatever `footage` says. Raises UsageError, MediaError."""
        footage, detector = self.footage, self.detector
        check_callable("detector", detector)
        check_callable("noise", self.noise)
        if not isinstance(frames, Iterable) or isinstance(frames, str | PathLike) or hasattr(frames, "read"):
            raise UsageError(
                f"frames is {described(frames)}; give arrays uint8 [height, width, 3] RGB, such as "
                "VideoReader(PATH).frames()"
            )
        if footage.segments is not None:
            raise UsageError("segments have sounds of their own, and a stream has the one that is given; use run")
        frames = list(frames) if isinstance(frames, np.ndarray) else frames
        timeline, samples = stream_plan(frames, samples, footage, length)
        if detector is None:
            choice = faces_for(footage, self.loaded.detector(), None, timeline)
        else:
            choice = given_faces(_checked(detector), footage)
        threads = detector_threads(footage.detect_every) if detector is None else 1
        plan = plan_for_samples(timeline, samples, footage)
        aligner = plan.aligner(FoundFaces(choice, self.loaded.bundle.model.resolution), threads=threads)
        pipeline = self.loaded.pipeline(
            plan, self.options, aligner, footage=footage, noise=self.noise, priority=self.priority
        )
        return pipeline.stages(indexed(frames, timeline, pipeline.chunker.source_length))


def _checked(detector: Detector) -> Detector:
    """The same, whose answers are looked at: UsageError where one is neither a Face nor None."""

    def look(frame: Frame) -> Face | None:
        found = detector(frame)
        if found is not None:
            check_kind("what the detector gave", found, Face)
        return found

    return look
