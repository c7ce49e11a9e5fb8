"""A look at all of a video's faces, kept beside a run's sections, so that a run that goes on does not look again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lsx.core.array_files import read_arrays, write_arrays
from lsx.faces.active_speaker import Agreement
from lsx.faces.following import SeenFrame
from lsx.faces.seen_history import NO_THUMBNAIL, seen_arrays, seen_frames
from lsx.faces.track_file import Tracks, VideoIdentity
from lsx.faces.tracks import TrackedFace

__all__ = ["Look"]


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """All faces of the frames of a run, and how far their lips and the sound agree where that was asked."""

    tracks: Tracks
    agreements: Mapping[int, Agreement] | None

    def write(self, path: Path) -> None:
        """Keep it. Raises OutputError."""
        by_frame = sorted(self.tracks.by_frame.items())
        seen = [
            (frame, SeenFrame([one.face for one in faces], NO_THUMBNAIL, frame in self.tracks.shots))
            for frame, faces in by_frame
        ]
        arrays: dict[str, Any] = seen_arrays(seen)
        arrays["tracks"] = np.array([one.track for _, faces in by_frame for one in faces], np.int64)
        arrays["first"] = np.array(self.tracks.first)
        if self.agreements is not None:
            looks = [
                (track, start, margin)
                for track, one in self.agreements.items()
                for start, margin in zip(one.starts, one.margins, strict=True)
            ]
            arrays["agreements"] = np.array(looks, np.float64).reshape(-1, 3)
        write_arrays(path, arrays)

    @classmethod
    def read(cls, path: Path, video: VideoIdentity) -> Look | None:
        """What was kept of this very video; None where there is nothing whole."""
        arrays = read_arrays(path)
        if arrays is None:
            return None
        numbers = iter(arrays["tracks"].tolist())
        seen = dict(seen_frames(arrays))
        by_frame = {frame: [TrackedFace(next(numbers), face) for face in one.faces] for frame, one in seen.items()}
        tracks = Tracks(
            path=Path(video.name),
            video=video,
            shots=frozenset(frame for frame, one in seen.items() if one.new_shot),
            by_frame=by_frame,
            ids=frozenset(arrays["tracks"].tolist()),
            first=int(arrays["first"]),
        )
        return cls(tracks, None if "agreements" not in arrays else _agreements(arrays["agreements"]))


def _agreements(rows: Any) -> dict[int, Agreement]:
    found = {}
    for track in dict.fromkeys(rows[:, 0].tolist()):
        own = rows[rows[:, 0] == track]
        found[int(track)] = Agreement(tuple(own[:, 1].astype(int).tolist()), tuple(own[:, 2].tolist()))
    return found
