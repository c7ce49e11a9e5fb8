"""Whole clips: the engines' pictures against the reference's, frame by frame and as a film."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsx.metrics.images import levels_of, psnr, ssim_map, temporal_difference
from lsx.metrics.learned import LearnedMetrics
from lsx.metrics.lips import LipFigures, lip_figures
from lsx.verify.inputs import ChunkInput
from lsx.verify.report import ClipQuality, WorstFrame

__all__ = ["ClipComparison"]

_FRAMES_SHOWN = 3
_WINDOW = 16  # frames that TREPA looks at
_FRAME_SAMPLES = 640


class ClipComparison:
    """Pictures of all chunks, each frame once."""

    def __init__(self, inside: NDArray[np.bool_]) -> None:
        self._inside = inside
        self.results: list[NDArray[np.uint8]] = []
        self.expected: list[NDArray[np.uint8]] = []
        self._truth: list[NDArray[np.uint8]] = []
        self._places: list[int] = []
        self._mouth: list[float] = []
        self._face: list[float] = []

    def add(self, chunk: ChunkInput, result: NDArray[Any], expected: NDArray[Any]) -> None:
        """The new frames of a chunk."""
        first = chunk.first + len(chunk.faces) - chunk.new
        self._places += range(first, first + chunk.new)
        for face, reference in zip(result[-chunk.new :], expected[-chunk.new :], strict=True):
            similar = ssim_map(face, reference)
            self._mouth.append(float(similar[self._inside].mean()))
            self._face.append(float(similar.mean()))
            self.results.append(levels_of(face))
            self.expected.append(levels_of(reference))
        if chunk.truth is not None:
            self._truth += list(chunk.truth[-chunk.new :])

    def figures(self, learned: LearnedMetrics, samples: NDArray[np.int16] | NDArray[np.float32]) -> ClipQuality:
        """Return the figures over all frames. samples : the sound, 16 kHz from output frame 0 on."""
        result, expected = np.stack(self.results), np.stack(self.expected)
        everywhere = np.ones_like(self._inside)
        return ClipQuality(
            frames=len(result),
            mouth_psnr=psnr(result, expected, self._inside),
            mouth_ssim=float(np.mean(self._mouth)),
            face_psnr=psnr(result, expected, everywhere),
            face_ssim=float(np.mean(self._face)),
            temporal=temporal_difference(result, expected, self._inside),
            **self._judged(learned, samples),
            **self._lips(result, expected),
        )

    def _lips(self, result: NDArray[np.uint8], expected: NDArray[np.uint8]) -> dict[str, Any]:
        """The lips of engine and reference against the truth, where it is known."""
        if len(self._truth) != len(result):
            return {}
        truth = np.stack(self._truth)
        return {"lips": lip_figures(result, truth), "expected_lips": lip_figures(expected, truth)}

    def beside(self, teacher: NDArray[np.uint8]) -> tuple[LipFigures, LipFigures | None]:
        """The engines' lips against a teacher's faces of the same frames, and the teacher's against the truth."""
        truth = np.stack(self._truth) if len(self._truth) == len(teacher) else None
        lips = lip_figures(np.stack(self.results), teacher)
        return lips, None if truth is None else lip_figures(teacher, truth)

    def _judged(self, learned: LearnedMetrics, samples: NDArray[np.int16] | NDArray[np.float32]) -> dict[str, Any]:
        """What the networks say that are there."""
        scores: dict[str, Any] = {}
        pairs = list(zip(self.results, self.expected, strict=True))
        if learned.lpips is not None:
            maps = [learned.lpips.map(*pair) for pair in pairs]
            scores["mouth_lpips"] = float(np.mean([one[self._inside].mean() for one in maps]))
            scores["face_lpips"] = float(np.mean([one.mean() for one in maps]))
        if learned.trepa is not None and len(pairs) >= _WINDOW:
            starts = range(0, len(pairs) - _WINDOW + 1, _WINDOW)
            windows = [[np.stack(faces[s : s + _WINDOW]) for faces in (self.results, self.expected)] for s in starts]
            scores["trepa"] = float(np.mean([learned.trepa.distance(*pair) for pair in windows]))
        for name, judge in (("sync", learned.syncnet), ("stable_sync", learned.stable_sync)):
            if judge is not None:
                heard = self._heard(samples)
                scores[name] = judge.judge(np.stack(self.results), heard)
                scores[f"expected_{name}"] = judge.judge(np.stack(self.expected), heard)
        return scores

    def _heard(self, samples: NDArray[np.int16] | NDArray[np.float32]) -> NDArray[np.int16]:
        """The sound of the frames that were compared."""
        padded = np.pad(samples, (0, max((self._places[-1] + 1) * _FRAME_SAMPLES - len(samples), 0)))
        return np.concatenate([padded[p * _FRAME_SAMPLES : (p + 1) * _FRAME_SAMPLES] for p in self._places])

    def worst(self) -> list[WorstFrame]:
        """The frames with the lowest similarity inside the mask."""
        order = np.argsort(self._mouth)[:_FRAMES_SHOWN]
        return [
            WorstFrame(frame=self._places[i], ssim=self._mouth[i], expected=self.expected[i], result=self.results[i])
            for i in order
        ]
