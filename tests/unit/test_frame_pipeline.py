"""The frame pipeline's bookkeeping: ping-pong, windows, and which frames a call keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lsx.core.footage import FootageOptions
from lsx.core.threaded_stages import StageChain, StageTimes
from lsx.errors import FaceNotFound, MediaError, UsageError
from lsx.faces.alignment import Face
from lsx.media.video_reader import ping_pong
from lsx.runtime import source_frames
from lsx.runtime.chunk_plan import Part
from lsx.runtime.chunker import Chunker
from lsx.runtime.face_aligner import FaceAligner, FoundFaces, SourceFrames
from lsx.runtime.face_choice import FaceChoice, GivenFaces, Slot, Unseen
from lsx.runtime.frame_pipeline import FramePipeline
from lsx.runtime.source_frames import indexed, stream_plan

POINTS = np.array([[24.0, 24], [40, 24], [32, 34]])


class _Chunks:
    """Stands in for the runner and the tokens; remembers which frames each call was made of."""

    keeps = False

    def __init__(self) -> None:
        self.frames: list[list[int]] = []
        self.levels: list[list[int]] = []
        self.numbers: list[int] = []
        self.made: list[NDArray[np.float32]] = []

    def tokens(self, frames: Sequence[int]) -> NDArray[np.float32]:
        self.frames.append(list(frames))
        return np.zeros(1, np.float32)

    def submit(self, faces: NDArray[np.uint8], _: Any, call: int, *_others: Any) -> int:
        self.numbers.append(call)
        self.levels.append([round(float(face.mean())) for face in faces])
        self.made.append(255.0 - faces.astype(np.float32))
        return len(self.made) - 1

    def result(self, pending: int) -> dict[str, NDArray[np.float32]]:
        return {"pixels": self.made[pending]}

    def stop(self) -> None:
        return None


def _frames(count: int) -> list[NDArray[np.uint8]]:
    return [np.full((64, 64, 3), i, np.uint8) for i in range(count)]


def _source(frames: Any, sound: int, **options: Any) -> SourceFrames:
    """At least a chunk of `frames` for a sound of `sound` frames."""
    timeline, _ = stream_plan(frames, np.zeros(640 * sound, np.int16), FootageOptions(**options), None)
    return indexed(frames, timeline, max(sound, 16))


def _run(frames: Any, length: int, faceless: frozenset[int] = frozenset()) -> tuple[_Chunks, list[Any], FramePipeline]:
    calls = _Chunks()
    line = FramePipeline(
        aligner=FaceAligner(
            FoundFaces(GivenFaces(lambda frame: None if int(frame[0, 0, 0]) in faceless else Face(points=POINTS)), 64),
            length=length,
        ),
        chunker=Chunker(frames=16, length=length),
        runner=calls,  # type: ignore[arg-type]
        voices=[calls],
    )
    results = list(StageChain(line.stages(_source(frames, length)), StageTimes()))
    return calls, results, line


def test_ping_pong() -> None:
    assert [ping_pong(i, 3) for i in range(10)] == [0, 1, 2, 2, 1, 0, 0, 1, 2, 2]
    assert [ping_pong(i, 1) for i in range(3)] == [0, 0, 0]


def test_the_last_call_covers_the_last_frames() -> None:
    calls, results, _ = _run(_frames(40), 40)
    assert calls.frames == [list(range(16)), list(range(16, 32)), list(range(24, 40))]
    assert [int(original[0, 0, 0]) for _, original in results] == list(range(40))
    # Each result is its own frame's face, inverted, in the middle of the crop.
    for index, (result, _) in enumerate(results):
        assert abs(int(result[32, 32, 0]) - (255 - index)) <= 1  # truncated, as in the original


@pytest.mark.parametrize("length", [16, 32])
def test_whole_calls(length: int) -> None:
    calls, results, _ = _run(_frames(length), length)
    assert [len(frames) for frames in calls.frames] == [16] * (length // 16)
    assert len(results) == length


def test_a_short_clip_is_completed_by_ping_pong() -> None:
    calls, results, _ = _run(_frames(5), 5)
    assert calls.frames == [list(range(16))]
    assert calls.levels == [[ping_pong(i, 5) for i in range(16)]]
    assert len(results) == 5


@pytest.mark.parametrize("make", [list, iter, tuple])
def test_ping_pong_of_any_iterable(make: Any) -> None:
    _, results, _ = _run(make(_frames(7)), 20)
    assert [int(original[0, 0, 0]) for _, original in results] == [ping_pong(i, 7) for i in range(20)]


def test_each_source_frame_is_looked_at_once() -> None:
    seen: list[int] = []
    line_frames = _frames(6)

    def detector(frame: NDArray[np.uint8]) -> Face:
        seen.append(int(frame[0, 0, 0]))
        return Face(points=POINTS)

    calls = _Chunks()
    line = FramePipeline(
        aligner=FaceAligner(faces=FoundFaces(GivenFaces(detector), 64), length=30),
        chunker=Chunker(frames=16, length=30),
        runner=calls,  # type: ignore[arg-type]
        voices=[calls],
    )
    list(StageChain(line.stages(_source(line_frames, 30)), StageTimes()))
    assert seen == list(range(6))


def test_a_faceless_frame_borrows_its_neighbour() -> None:
    calls, results, line = _run(_frames(16), 16, frozenset({0, 5, 6, 15}))
    assert calls.levels == [[1, 1, 2, 3, 4, 4, 7, 7, 8, 9, 10, 11, 12, 13, 14, 14]]
    assert line.aligner.faceless == [0, 5, 6, 15]
    for index in (0, 5, 6, 15):
        result, original = results[index]
        assert result is original


def test_a_call_without_faces_is_skipped() -> None:
    calls, results, line = _run(_frames(48), 48, frozenset(range(16, 32)))
    assert calls.frames == [list(range(16)), list(range(32, 48))]
    assert calls.numbers == [0, 2]
    assert line.aligner.faceless == list(range(16, 32))
    assert len(results) == 48


def _line(chunker: Chunker, choice: FaceChoice | None = None) -> tuple[_Chunks, list[Any], FramePipeline]:
    """A run over frames of levels 0, 1, 2, ... Each chunk inverts its faces, and adds its number in levels."""
    calls = _Chunks()
    line = FramePipeline(
        aligner=FaceAligner(FoundFaces(choice or GivenFaces(lambda _: Face(points=POINTS)), 64), length=chunker.length),
        chunker=chunker,
        runner=calls,  # type: ignore[arg-type]
        voices=[calls, calls],
    )
    source = _source(_frames(chunker.length), chunker.length)
    return calls, list(StageChain(line.stages(source), StageTimes())), line


def test_where_chunks_overlap_one_leads_over_to_the_next() -> None:
    calls, results, line = _line(Chunker(frames=16, length=40, overlap=4))
    assert calls.frames == [list(range(16)), list(range(12, 28)), list(range(24, 40))]
    assert [int(original[0, 0, 0]) for _, original in results] == list(range(40))
    for index, (result, _) in enumerate(results):
        assert abs(int(result[32, 32, 0]) - (255 - index)) <= 1
    assert line.seams.ratio == pytest.approx(1, abs=0.01)  # every frame is one level darker than the one before


def test_a_brighter_chunk_is_faded_in_and_its_seam_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    submitted = _Chunks.submit

    def brighter(self: _Chunks, faces: NDArray[np.uint8], tokens: Any, call: int, *others: Any) -> int:
        number = submitted(self, faces, tokens, call, *others)
        self.made[number] += {1: 30.0}.get(call, 0.0) - 100
        return number

    monkeypatch.setattr(_Chunks, "submit", brighter)
    _, results, line = _line(Chunker(frames=16, length=28, overlap=4))
    levels = [int(result[32, 32, 0]) for result, _ in results]
    expected = [155 - i + 30 * min(max((i - 11) / 5, 0), 1) for i in range(28)]
    np.testing.assert_allclose(levels, expected, atol=1.01)
    assert line.seams.ratio == pytest.approx((30 / 5 - 1) / 1, abs=0.05)
    _, _, hard = _line(Chunker(frames=16, length=28))
    assert hard.seams.ratio == pytest.approx(29, abs=0.2)


def test_frames_outside_all_parts_pass_untouched_as_they_come() -> None:
    parts = [Part(20, 30), Part(64, 100, voice=1)]
    calls, results, _ = _line(Chunker(frames=16, length=200, parts=parts))
    assert calls.frames == [list(range(14, 30)), list(range(64, 80)), list(range(80, 96)), list(range(84, 100))]
    assert [int(original[0, 0, 0]) for _, original in results] == list(range(200))
    touched = {i for i, (result, original) in enumerate(results) if result is not original}
    assert touched == {*range(20, 30), *range(64, 100)}


def test_only_where_someone_speaks_a_face_is_missed() -> None:
    needed = np.zeros(40, bool)
    needed[4:20] = True
    faces = GivenFaces(lambda frame: None if frame[0, 0, 0] in (2, 10, 30) else Face(points=POINTS))
    aligner = FaceAligner(faces=FoundFaces(faces, 64), length=40, needed=needed)
    items = aligner.align(aligner.detect(aligner.check(_source(_frames(40), 40))))
    assert [item.index for item in items if not item.faces] == [2, 10, 30]
    assert aligner.faceless == [10]
    strict = FaceAligner(faces=FoundFaces(faces, 64), length=40, needed=needed, require_face=True)
    with pytest.raises(FaceNotFound, match=r"no face in the frame at 0\.40 s"):
        list(strict.align(strict.detect(strict.check(_source(_frames(40), 40)))))


def test_frames_that_no_chunk_needs_are_not_held_back() -> None:
    """A part at the end of a long video: what comes before it goes on a chunk's worth at a time."""
    chunker = Chunker(frames=16, length=200, parts=[Part(180, 200)])
    come: list[int] = []
    aligner = FaceAligner(faces=FoundFaces(GivenFaces(lambda _: Face(points=POINTS)), 64), length=200)
    source = _source(_frames(200), 200)

    def counted() -> SourceFrames:
        for item in source:
            come.append(item[0])
            yield item

    chunks = chunker.chunks(aligner.align(aligner.detect(aligner.check(counted()))))
    for number in range(1, 11):
        assert [item.index for item in next(chunks).done] == list(range(16 * number - 16, 16 * number))
        assert len(come) <= 16 * number + 2


class _TwoFaces(Unseen):
    """A near face and one behind it, where the frame's level says so."""

    advice = ""
    choices = ()
    near, far = Face(points=POINTS), Face(points=(POINTS - 32) * 0.6 + 34)

    def look(self, frame: NDArray[np.uint8]) -> int:
        return int(frame[0, 0, 0])

    def choose(self, _: int, level: int, __: int) -> dict[Slot, Face]:
        both = {Slot(0, 0): self.near, Slot(0, 1): self.far}
        return both if 20 <= level < 30 else {Slot(0, 0): self.near}


def test_several_faces_are_done_in_one_pass_the_nearest_pasted_last() -> None:
    calls, results, line = _line(Chunker(frames=16, length=48), _TwoFaces())
    assert calls.numbers == [0, 1, 1, 2]  # the second face is there in the second chunk alone
    assert (line.collected, line.computed) == (3, 3)
    assert [int(original[0, 0, 0]) for _, original in results] == list(range(48))
    for index, (result, _) in enumerate(results):
        assert abs(int(result[32, 32, 0]) - (255 - index)) <= 1  # never inverted twice: the near one covers


def test_silent_frames_stay_as_they_are_and_cost_no_call() -> None:
    calls = _Chunks()
    speech = np.ones(44, np.float32)
    speech[10:34] = 0  # the second call's frames, and some of the others'
    speech[9], speech[34] = 0.5, 0.25
    chunker = Chunker(frames=16, length=44, parts=[Part(0, 44, speech=speech)])
    line = FramePipeline(
        aligner=FaceAligner(faces=FoundFaces(GivenFaces(lambda _: Face(points=POINTS)), 64), length=44),
        chunker=chunker,
        runner=calls,  # type: ignore[arg-type]
        voices=[calls],
    )
    results = list(StageChain(line.stages(_source(_frames(44), 44)), StageTimes()))
    assert (chunker.count, chunker.silent) == (3, 1)
    assert (line.collected, line.computed) == (3, 2)
    assert calls.numbers == [0, 2]
    assert calls.frames == [list(range(16)), list(range(28, 44))]
    assert [result is original for result, original in results] == [10 <= i < 34 for i in range(44)]
    for index in (9, 34):
        mixed = index + float(speech[index]) * (255 - 2 * index)
        assert abs(float(results[index][0][32, 32, 0]) - mixed) <= 1
    assert abs(int(results[8][0][32, 32, 0]) - (255 - 8)) <= 1


def test_what_a_one_shot_iterable_cannot_replay_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_frames, "_KEPT_BYTES", 4 * 64 * 64 * 3)
    assert [i for i, _ in _source(iter(_frames(12)), 16)] == [ping_pong(i, 12) for i in range(16)]
    with pytest.raises(MediaError, match="only the last 4 are kept"):
        list(_source(iter(_frames(12)), 17))
    with pytest.raises(MediaError, match="only the last 4 are kept"):
        list(_source(iter(_frames(12)), 17, extend="loop"))
    assert [i for i, _ in _source(iter(_frames(12)), 40, extend="hold")][11:] == [11] * 29


@pytest.mark.parametrize("options", [{"length": "video"}, {"length": "longest"}, {"extend": "remap"}])
def test_what_needs_the_number_of_frames_needs_a_sequence(options: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(options))} is .* give a sequence"):
        _source(iter(_frames(12)), 17, **options)
    assert len(list(_source(_frames(20), 17, **options))) >= 17


def test_a_part_of_any_iterable() -> None:
    options = {"start": 0.08, "end": 0.2}
    for make in (list, iter):
        made = list(_source(make(_frames(12)), 16, **options))
        assert [i for i, _ in made] == [2 + ping_pong(i, 3) for i in range(16)]
        assert all(frame[0, 0, 0] == index for index, frame in made)


@pytest.mark.parametrize(
    "wrong", [np.zeros((64, 64), np.uint8), np.zeros((64, 64, 3), np.float32), np.zeros((32, 64, 3), np.uint8), "frame"]
)
def test_wrong_frames_are_refused(wrong: Any) -> None:
    with pytest.raises(UsageError, match="frame 3 is"):
        _run([*_frames(3), wrong], 8)
    with pytest.raises(MediaError, match="no frames"):
        _run([], 8)
