"""tracks.json: what is written is read back exactly, and nothing else is taken for it."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest

from lsx.errors import MediaError, OutputError
from lsx.faces.alignment import Face
from lsx.faces.track_file import Track, Tracks, TrackWriter, VideoIdentity
from lsx.faces.tracks import LONGEST_GAP, TrackedFace
from tests.unit.test_tracks import face

VIDEO = VideoIdentity(name="v.mp4", frames=60, width=320, height=240, bytes=1000)
PICTURE = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)


def _faces(number: int) -> list[TrackedFace]:
    """Two tracks in the first shot, of which the second ends; a third after the cut."""
    rng = np.random.default_rng(number)
    noise = rng.uniform(0, 1)
    if number >= 40:
        return [TrackedFace(3, face(150 + noise, 100))]
    found = [TrackedFace(1, Face(face(80, 100).points, (1.1 + noise, 2, 90, 100), noise, 0.25))]
    return found + ([TrackedFace(2, face(240, 100 + noise, 90))] if number < 10 else [])


def _written(path: Path) -> list[list[Track]]:
    ended = []
    with TrackWriter(path, VIDEO, "mediapipe") as writer:
        for number in range(60):
            ended.append(writer.add(number, PICTURE, _faces(number), new_shot=number in (0, 40)))
            assert len(writer._living) <= 2
        ended.append(writer.finish())
    return ended


def test_it_is_read_back_exactly(tmp_path: Path) -> None:
    _written(tmp_path / "t.json")
    tracks = Tracks.read(tmp_path / "t.json")
    assert tracks.video == VIDEO
    assert tracks.shots == frozenset({0, 40})
    assert tracks.ids == frozenset({1, 2, 3})
    for number in range(60):
        expected = {tracked.track: tracked.face for tracked in _faces(number)}
        found = {tracked.track: tracked.face for tracked in tracks.by_frame[number]}
        assert found.keys() == expected.keys()
        for track, ours in found.items():
            assert np.array_equal(ours.points, expected[track].points)
            assert (ours.box, ours.score) == (expected[track].box, expected[track].score)
    tracks.check(VIDEO)


def test_tracks_leave_memory_as_they_end(tmp_path: Path) -> None:
    ended = _written(tmp_path / "t.json")
    assert [track.id for track in ended[11 + LONGEST_GAP]] == [2]
    assert [track.id for track in ended[40]] == [1]
    assert [track.id for track in ended[60]] == [3]
    content = json.loads((tmp_path / "t.json").read_text())
    assert [track["id"] for track in content["tracks"]] == [2, 1, 3]
    assert [track["shot"] for track in content["tracks"]] == [0, 0, 1]
    assert content["tracks"][1]["mouth_opening"][0] == 0.25
    assert content["tracks"][0]["mouth_opening"][0] is None


def test_nothing_half_written_is_left(tmp_path: Path) -> None:
    with contextlib.suppress(KeyboardInterrupt), TrackWriter(tmp_path / "t.json", VIDEO, "mediapipe") as writer:
        writer.add(0, PICTURE, _faces(0), new_shot=True)
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())
    with pytest.raises(OutputError, match="cannot be written"):
        TrackWriter(tmp_path / "no" / "t.json", VIDEO, "mediapipe")


def test_another_video_s_faces_are_refused(tmp_path: Path) -> None:
    _written(tmp_path / "t.json")
    other = VideoIdentity(name="w.mp4", frames=61, width=320, height=240, bytes=1000)
    with pytest.raises(MediaError, match=r"made of another video: 60 frames, and w.mp4 has 61.*lsx faces w.mp4"):
        Tracks.read(tmp_path / "t.json").check(other)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"schema_version": 1', '"schema_version": 2', "schema 2 is not 1"),
        ('"points"', '"pints"', "not a file of lsx faces, or damaged"),
        ('"shots": [0, 40]', '"shots": 3', "not a file of lsx faces, or damaged"),
        ("]", "", "not a file of lsx faces, or damaged"),
        ('{"schema', '[{"schema', "not a file of lsx faces, or damaged"),
    ],
)
def test_damaged_files_are_one_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    _written(tmp_path / "t.json")
    content = (tmp_path / "t.json").read_text()
    assert old in content
    (tmp_path / "t.json").write_text(content.replace(old, new))
    with pytest.raises(MediaError, match=message):
        Tracks.read(tmp_path / "t.json")
    with pytest.raises(MediaError, match="cannot be read"):
        Tracks.read(tmp_path / "none.json")
