"""What a run saw in its frames, kept so that it can be taken up again as if it had never been left."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsx.faces.alignment import Face
from lsx.faces.following import SeenFrame

__all__ = ["NO_THUMBNAIL", "SeenHistory", "seen_arrays", "seen_frames"]

NO_THUMBNAIL = np.zeros((0, 0, 3), np.uint8)


class SeenHistory:
    """Source frames that were seen, in order. Filled by one thread, asked by another."""

    def __init__(self, marks: Collection[int]) -> None:
        """marks : source frames after which a run may be left: their thumbnails are kept."""
        self._marks = frozenset(marks)
        self._seen: list[tuple[int, SeenFrame]] = []

    def add(self, source: int, seen: SeenFrame) -> None:
        """The next frame, of which is known whether a shot begins with it."""
        kept = seen if source in self._marks else replace(seen, thumbnail=NO_THUMBNAIL)
        self._seen.append((source, kept))

    def taken(self, last: int) -> dict[str, NDArray[Any]]:
        """The frames up to the source frame `last` that were not taken before, as `seen_frames` reads them."""
        stop = next((n for n, (source, _) in enumerate(self._seen) if source > last), len(self._seen))
        taken = self._seen[:stop]
        del self._seen[:stop]
        return seen_arrays(taken)


def seen_arrays(frames: Sequence[tuple[int, SeenFrame]]) -> dict[str, NDArray[Any]]:
    """Frames, each with its source frame, as `seen_frames` reads them; of thumbnails the last one's."""
    faces = [face for _, seen in frames for face in seen.faces]
    nowhere = (np.nan,) * 4
    return {
        "source": np.array([source for source, _ in frames], np.int64),
        "new_shot": np.array([bool(seen.new_shot) for _, seen in frames], bool),
        "since": np.array([seen.since for _, seen in frames], np.int64),
        "faces": np.array([len(seen.faces) for _, seen in frames], np.int64),
        "points": np.array([face.points for face in faces], np.float64).reshape(-1, 3, 2),
        "box": np.array([face.box or nowhere for face in faces], np.float64).reshape(-1, 4),
        "score": np.array([face.score for face in faces], np.float64),
        "has_opening": np.array([face.mouth_opening is not None for face in faces], bool),
        "opening": np.array([face.mouth_opening or 0.0 for face in faces], np.float64),
        "thumbnail": frames[-1][1].thumbnail if frames else NO_THUMBNAIL,
    }


def seen_frames(arrays: Mapping[str, NDArray[Any]]) -> Iterator[tuple[int, SeenFrame]]:
    """The frames that `SeenHistory.taken` gave, each with its source frame; the last one has its thumbnail."""
    faces = [
        Face(
            points=points,
            box=None if np.isnan(box[0]) else (float(box[0]), float(box[1]), float(box[2]), float(box[3])),
            score=float(score),
            mouth_opening=float(opening) if has_opening else None,
        )
        for points, box, score, has_opening, opening in zip(
            *(arrays[name] for name in ("points", "box", "score", "has_opening", "opening")), strict=True
        )
    ]
    sources, stops = arrays["source"].tolist(), np.cumsum(arrays["faces"]).tolist()
    for number, source in enumerate(sources):
        last = number == len(sources) - 1
        yield (
            source,
            SeenFrame(
                faces=faces[stops[number - 1] if number else 0 : stops[number]],
                thumbnail=arrays["thumbnail"] if last else NO_THUMBNAIL,
                new_shot=bool(arrays["new_shot"][number]),
                since=int(arrays["since"][number]),
            ),
        )
