"""Several runs of one LipSync at once: each gives, byte for byte, what it gives alone, however they mix and end."""

from __future__ import annotations

import asyncio
import io
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from lsx import CancelToken, Face, LipSync, SamplingOptions, VideoReader
from lsx.core.graph_names import LOOP_GRAPHS
from lsx.core.tensors import TensorSpec
from lsx.engines.engine import Array, Engine, FeedDict
from lsx.errors import Cancelled, EngineClosed, UsageError
from lsx.runtime.frame_stream import FrameStream
from tests.simulated_device import SimulatedDevice, SimulatedEngine
from tests.unit.test_program import MODEL, ToyEngine

Opened = Callable[..., LipSync]
POINTS = np.array([[24.0, 24], [40, 24], [32, 34]])
CLIPS = 8
LENGTH = 20  # two chunks


class _Delayed(ToyEngine):
    """Gives other threads the chance to come between any two graphs."""

    pauses: random.Random | None = None

    def run(self, feed_dict: FeedDict) -> dict[str, Array]:
        if self.pauses is not None:
            threading.Event().wait(self.pauses.random() * 0.002)
        made = super().run(feed_dict)
        if self.graph == "vae_decoder":  # so that noise, sound and schedule are seen in the picture, not faces alone
            made["pixels"] = made["pixels"] + 40 * np.tanh(30 * feed_dict["latents"].mean((0, 1, 3, 4)))[
                :, None, None, None
            ].astype(np.float32)
        return made


class _ToyAudio(Engine):
    def __init__(self) -> None:
        mel = TensorSpec(name="mel", dtype="float32", shape=("n", 80, 3000))
        states = TensorSpec(name="hidden_states", dtype="float32", shape=("n", 1500, 5, MODEL.audio_dim))
        super().__init__("audio_encoder", [mel], [states])

    description = "toy"

    def run(self, feed_dict: FeedDict) -> dict[str, Array]:
        level = feed_dict["mel"].mean(1)[:, ::2]
        return {"hidden_states": np.repeat(np.repeat(level[:, :, None, None], 5, 2), MODEL.audio_dim, 3)}

    def close(self) -> None:
        return None


def _opened(kind: str, seed: int) -> LipSync:
    toys: dict[str, Engine] = {graph: _Delayed(graph, MODEL) for graph in LOOP_GRAPHS}
    for engine in toys.values():
        cast(_Delayed, engine).pauses = random.Random(seed)
    if kind == "device":
        device = SimulatedDevice(seed)
        toys = {graph: SimulatedEngine(engine, device) for graph, engine in toys.items()}
    bundle: Any = SimpleNamespace(
        model=MODEL,
        path="toy",
        manifest=SimpleNamespace(faces=None),
        sampling=SamplingOptions(),
        check_sampling=lambda _options: None,
    )
    return LipSync(bundle, toys | {"audio_encoder": _ToyAudio()}, "toy")


@pytest.fixture(params=["host", "device"])
def opened(request: pytest.FixtureRequest) -> Iterator[Opened]:
    made: list[LipSync] = []

    def open_one(seed: int = 0) -> LipSync:
        made.append(_opened(request.param, seed))
        return made[-1]

    yield open_one
    for lipsync in made:
        lipsync.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("lsx-")]


def _stream(lipsync: LipSync, clip: int, **more: Any) -> FrameStream:
    """Clip number `clip`: its own face, sound, seed and schedule; every third one without guidance."""
    frames = [np.full((64, 64, 3), 10 + 25 * clip + i, np.uint8) for i in range(LENGTH)]
    sound = (np.random.default_rng(clip).standard_normal(640 * LENGTH) * 0.1).astype(np.float32)
    return lipsync.stream(
        frames,
        sound,
        LENGTH,
        steps=1 + clip % 2,
        guidance=1.0 if clip % 3 == 2 else 1.5,
        seed=clip,
        detector=lambda _: Face(points=POINTS),
        **more,
    )


_ALONE: dict[int, bytes] = {}


def _alone(clip: int) -> bytes:
    """What the clip gives where nothing else runs, on the host."""
    if clip not in _ALONE:
        with _opened("host", 0) as lipsync:
            _ALONE[clip] = np.stack(list(_stream(lipsync, clip))).tobytes()
    return _ALONE[clip]


def _bytes(frames: list[NDArray[np.uint8]]) -> bytes:
    return np.stack(frames).tobytes()


def test_the_clips_differ() -> None:
    assert len({_alone(clip) for clip in range(CLIPS)}) == CLIPS


@pytest.mark.parametrize("threads", [2, 8])
def test_runs_in_threads(opened: Opened, threads: int) -> None:
    lipsync = opened()
    results: dict[int, bytes] = {}
    together = threading.Barrier(threads)

    def run(clip: int) -> None:
        together.wait(10)
        results[clip] = _bytes(list(_stream(lipsync, clip)))

    workers = [threading.Thread(target=run, args=(clip,)) for clip in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert results == {clip: _alone(clip) for clip in range(threads)}


@pytest.mark.parametrize("part", range(10))
def test_generators_in_turns_with_some_given_up(opened: Opened, part: int) -> None:
    """A hundred random interleavings on each kind of executor: streams read in turns, closed, dropped, cancelled."""
    lipsync = opened()
    for number in range(10):
        chance = random.Random(100 * part + number)
        clips = chance.sample(range(CLIPS), chance.choice([2, 2, 3]))
        tokens = {clip: CancelToken() for clip in clips}
        streams = {clip: _stream(lipsync, clip, cancel=tokens[clip]) for clip in clips}
        taken: dict[int, list[NDArray[np.uint8]]] = {clip: [] for clip in clips}
        lost = chance.choice(clips) if number % 2 else None
        while streams:
            clip = chance.choice(list(streams))
            for _ in range(chance.choice([1, 1, 5, 17])):
                frame = next(streams[clip], None)
                if frame is None:
                    assert _bytes(taken[clip]) == _alone(clip)
                    del streams[clip]
                    break
                taken[clip].append(frame)
            if clip == lost and clip in streams and chance.random() < 0.3:
                stream = streams.pop(clip)
                if (way := chance.randrange(3)) == 0:
                    stream.close()
                    assert next(stream, None) is None
                elif way == 1:
                    tokens[clip].cancel()
                    with pytest.raises(Cancelled):
                        list(stream)
                del stream


def test_a_stream_whose_frames_nobody_takes_holds_nobody_up(opened: Opened) -> None:
    lipsync = opened()
    waiting = [_stream(lipsync, clip) for clip in range(4)]
    for stream in waiting:
        next(stream)  # from here on nobody reads them
    assert _bytes(list(_stream(lipsync, 5))) == _alone(5)
    for stream in waiting:
        stream.close()


def test_two_streams_before_either_is_read(opened: Opened) -> None:
    lipsync = opened()
    first, second = _stream(lipsync, 0), _stream(lipsync, 1)
    pairs = list(zip(first, second, strict=True))
    assert _bytes([a for a, _ in pairs]) == _alone(0)
    assert _bytes([b for _, b in pairs]) == _alone(1)


def test_closing_in_the_middle_ends_every_run_with_the_documented_error(opened: Opened) -> None:
    lipsync = opened()
    begun, unbegun = _stream(lipsync, 0), _stream(lipsync, 1)
    got = next(begun)
    assert got.shape == (64, 64, 3)
    lipsync.close()
    for stream in (begun, unbegun):
        with pytest.raises(EngineClosed, match="closed while this run"):
            list(stream)
        assert next(stream, None) is None  # said once
    with pytest.raises(EngineClosed, match="Open it again"):
        _stream(lipsync, 2)
    lipsync.close()


@pytest.mark.parametrize("seed", range(5))
def test_closing_from_another_thread_and_from_a_callback(opened: Opened, seed: int) -> None:
    lipsync = opened(seed)
    outcomes: list[str] = []
    half = threading.Event()

    def run(clip: int) -> None:
        try:
            for count, _ in enumerate(_stream(lipsync, clip)):
                if count == seed:
                    half.set()
            outcomes.append("whole")
        except EngineClosed:
            outcomes.append("closed")

    workers = [threading.Thread(target=run, args=(clip,)) for clip in range(3)]
    for worker in workers:
        worker.start()
    assert half.wait(20)
    lipsync.close()
    for worker in workers:
        worker.join()
    assert len(outcomes) == 3  # nothing but an end or EngineClosed

    other = opened(seed)

    def detector(frame: NDArray[np.uint8]) -> Face:
        if frame[0, 0, 0] == seed:
            other.close()  # on one of the run's own threads
        return Face(points=POINTS)

    frames = [np.full((64, 64, 3), i, np.uint8) for i in range(LENGTH)]
    with pytest.raises(EngineClosed):
        list(other.stream(frames, np.zeros(640 * LENGTH, np.int16), LENGTH, steps=1, detector=detector))
    for thread in threading.enumerate():
        if thread.name == "lsx-close":
            thread.join()


def test_what_is_no_face_and_no_options_is_said(opened: Opened) -> None:
    lipsync = opened()
    frames, detector = [np.zeros((64, 64, 3), np.uint8)] * 4, cast(Any, lambda _: 3)
    with pytest.raises(UsageError, match=r"^what the detector gave is 3; give a Face$"):
        list(lipsync.stream(frames, np.zeros(2560, np.int16), steps=1, detector=detector))
    with pytest.raises(UsageError, match=r"^options is 3; give a SamplingOptions, or keywords such as steps=\.\.\.$"):
        lipsync.warm_up(cast(Any, 3))


def test_a_warm_up_takes_what_a_run_takes(opened: Opened) -> None:
    lipsync = opened()
    given: list[tuple[Any, dict[str, Any], int]] = [(None, {"steps": 2}, 2), (SamplingOptions(steps=3), {}, 3)]
    for options, keywords, steps in [*given, (SamplingOptions(steps=3), {"steps": 4}, 4), (None, {}, 20)]:
        lipsync.warm_up(*([options] if options else []), **keywords)
        assert steps in {key.steps for key in lipsync.schedules}
    with pytest.raises(UsageError, match="no option stepz; did you mean steps"):
        lipsync.warm_up(stepz=2)  # type: ignore[call-arg]


@pytest.mark.parametrize("wrong", ["video.mp4", Path("video.mp4"), 3, io.BytesIO(), object.__new__(VideoReader)])
def test_a_stream_says_what_gives_frames(opened: Opened, wrong: Any) -> None:
    said = rf"^frames is of type {type(wrong).__name__}; give .*, such as VideoReader\(PATH\)\.frames\(\)$"
    with pytest.raises(UsageError, match=said):
        opened().stream(wrong, np.zeros(2560, np.int16))


def test_a_streams_length_may_be_one_of_numpy(opened: Opened) -> None:
    frames, sound = [np.zeros((64, 64, 3), np.uint8)] * 4, np.zeros(2560, np.int16)
    length: Any
    for length in (np.int64(2), 2):
        with opened().stream(frames, sound, length, steps=1, detector=lambda _: Face(points=POINTS)) as stream:
            assert len(list(stream)) == 2
    for length in (True, 0, 1.5):
        with pytest.raises(UsageError, match=r"^length is "):
            opened().stream(frames, sound, length, steps=1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"resume_dir": 3}, "resume_dir is of type int; give a path"),
        ({"resume_every": float("inf")}, "resume_every is inf; give seconds over 0"),
        ({"compare": 3}, "compare is of type int; give a path"),
    ],
)
def test_folders_and_seconds_of_a_run(opened: Opened, options: Any, said: str) -> None:
    with pytest.raises(UsageError, match=f"^{said}$"):
        opened().run("v.mp4", "s.wav", "o.mp4", **options)


def test_close_and_cancel_reach_a_consumer_that_waits(opened: Opened) -> None:
    """From another thread, while the consumer waits for a frame that does not come."""
    for how in ("close", "cancel"):
        lipsync, token = opened(), CancelToken()
        hold = threading.Event()
        outcome: list[str] = []

        def frames(hold: threading.Event = hold) -> Iterator[NDArray[np.uint8]]:
            yield np.zeros((64, 64, 3), np.uint8)
            hold.wait(20)

        sound = np.zeros(640 * 64, np.int16)
        stream = lipsync.stream(frames(), sound, steps=1, detector=lambda _: Face(points=POINTS), cancel=token)

        def consume(stream: FrameStream = stream, outcome: list[str] = outcome) -> None:
            try:
                outcome.append("ended" if next(stream, None) is None else "frame")
            except Cancelled:
                outcome.append("cancelled")

        consumer = threading.Thread(target=consume)
        consumer.start()
        (token.cancel if how == "cancel" else stream.abort)()
        hold.set()
        consumer.join(20)
        assert outcome == ["cancelled" if how == "cancel" else "ended"]
        stream.close()


def test_a_token_that_is_cancelled_already(opened: Opened) -> None:
    token = CancelToken()
    token.cancel()
    with pytest.raises(Cancelled, match="nothing was left behind"):
        _stream(opened(), 0, cancel=token)


def test_a_cancelled_run_does_not_go_on_computing() -> None:
    """On a CPU it ends between two graphs, not only after its chunk."""
    lipsync = _opened("host", 0)
    token = CancelToken()
    ran: list[int] = []
    unet = lipsync.engines["unet"]
    first = unet.run

    def run(feed: FeedDict) -> dict[str, Array]:
        ran.append(len(ran))
        token.cancel()
        return first(feed)

    cast(Any, unet).run = run
    frames = [np.zeros((64, 64, 3), np.uint8)] * LENGTH
    stream = lipsync.stream(
        frames, np.zeros(12800, np.int16), steps=50, detector=lambda _: Face(points=POINTS), cancel=token
    )
    with pytest.raises(Cancelled):
        next(stream)
    assert ran == [0]
    lipsync.close()


def test_asyncio(opened: Opened) -> None:
    lipsync = opened()

    def arguments(clip: int) -> tuple[list[Any], dict[str, Any]]:
        frames = [np.full((64, 64, 3), 10 + 25 * clip + i, np.uint8) for i in range(LENGTH)]
        sound = (np.random.default_rng(clip).standard_normal(640 * LENGTH) * 0.1).astype(np.float32)
        options = {"steps": 1 + clip % 2, "guidance": 1.0 if clip % 3 == 2 else 1.5, "seed": clip}
        return [frames, sound, LENGTH], options | {"detector": lambda _: Face(points=POINTS)}

    async def collect(clip: int, most: int = 10**6) -> list[NDArray[np.uint8]]:
        taken: list[NDArray[np.uint8]] = []
        given, options = arguments(clip)
        stream = lipsync.astream(*given, **options)
        async for frame in stream:
            taken.append(frame)
            if len(taken) == most:
                await stream.aclose()
                break
        return taken

    async def main() -> None:
        given, options = arguments(3)
        # A consumer that was cancelled, the way servers do it, before the others: its thread goes on for a while.
        lost = asyncio.create_task(asyncio.to_thread(lambda: list(lipsync.stream(*given, **options))))
        gone = asyncio.create_task(collect(4))
        await asyncio.sleep(0)
        lost.cancel()
        gone.cancel()
        results = await asyncio.gather(
            lost, gone, *(collect(clip) for clip in range(3)), collect(5, 3), return_exceptions=True
        )
        assert [isinstance(r, asyncio.CancelledError) for r in results[:2]] == [True, True]
        for clip in range(3):
            assert _bytes(cast(Any, results[2 + clip])) == _alone(clip)
        assert len(cast(Any, results[5])) == 3

    asyncio.run(main())
