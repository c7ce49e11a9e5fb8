"""A face in Pipecat's own pipeline and LiveKit's own AvatarRunner: pictures and sound in step, ends, interruptions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest
from livekit import rtc
from livekit.agents.voice.avatar import AvatarRunner, QueueAudioOutput
from numpy.typing import NDArray
from pipecat.frames.frames import (
    Frame,
    InterruptionFrame,
    OutputImageRawFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)
from pipecat.tests.utils import SleepFrame, run_test

from examples.synthetic_clip import speech
from lsx.serving.agents.line import Shot, Speech
from lsx.serving.agents.livekit import LsxVideoGenerator
from lsx.serving.agents.pipecat import LsxVideoService

RATE = 24000


class _Line:
    """An avatar that costs nothing: spoken frames as soon as 16 frames' sound is there, else idle ones.

    What it shows says what it is: red for spoken frames, black for idle ones.
    """

    width, height = 64, 48

    def __init__(self) -> None:
        self.heard: list[NDArray[np.int16]] = []
        self.events: list[str] = []
        self._ready: list[Shot] = []
        self._samples = 0

    def _shot(self, speaking: bool, last: bool = False) -> Shot:
        image = np.zeros((self.height, self.width, 3), np.uint8)
        image[..., 0] = 255 * speaking
        return Shot(image=image, speaking=speaking, last=last)

    async def say(self, samples: NDArray[np.int16]) -> None:
        assert samples.dtype == np.int16
        self.heard.append(samples)
        self._samples += len(samples)
        while self._samples >= 16 * 640:
            self._samples -= 16 * 640
            self._ready += [self._shot(True)] * 16

    async def end(self) -> None:
        self.events.append("end")
        frames = -(-self._samples // 640)
        self._ready += [self._shot(True)] * (frames - 1) + [self._shot(True, last=True)]
        self._samples = 0

    async def clear(self) -> None:
        self.events.append("clear")
        self._ready.clear()
        self._samples = 0

    async def shots(self) -> AsyncIterator[Shot]:
        while True:
            yield self._ready.pop(0) if self._ready else self._shot(False)
            await asyncio.sleep(0.002)


def _sound(seconds: float, rate: int = RATE) -> NDArray[np.int16]:
    return speech(seconds, rate)


def _pieces(sound: NDArray[np.int16], size: int) -> list[bytes]:
    return [sound[start : start + size].tobytes() for start in range(0, len(sound), size)]


@pytest.mark.parametrize(("rate", "channels"), [(24000, 1), (16000, 1), (44100, 2), (48000, 1)])
def test_the_listener_hears_what_was_made_and_the_model_16_khz(rate: int, channels: int) -> None:
    line, mono = _Line(), _sound(1.0, rate)
    sound = np.repeat(mono, channels)

    async def spoken() -> bytes:
        way, heard = Speech(line), b""
        for piece in _pieces(sound, 2 * 441):
            await way.say(piece, rate, channels)
        await way.end()
        for shot in line._ready:
            heard += way.sound_of(shot)
        assert way.sound_of(line._ready[-1]) == bytes(2 * channels * (rate // 25))  # nothing is left
        return heard

    heard = np.frombuffer(asyncio.run(spoken()), np.int16)
    assert np.array_equal(heard[: len(sound)], sound)
    assert len(heard) - len(sound) <= 2 * channels * rate // 25
    model = np.concatenate(line.heard)
    assert abs(len(model) - 16000) <= 32
    if rate == 16000:
        assert np.array_equal(model, mono)
    else:  # the same speech: its loudness goes up and down alike
        loud = [np.abs(one.astype(float)[: len(one) // 25 * 25].reshape(25, -1)).mean(1) for one in (model, mono)]
        assert np.corrcoef(*loud)[0, 1] > 0.99


def test_two_utterances_do_not_run_into_each_other() -> None:
    line, first, second = _Line(), _sound(0.5), _sound(0.3)[::-1].copy()

    async def spoken() -> list[bytes]:
        way, heard = Speech(line), []
        for sound in (first, second):
            await way.say(sound.tobytes(), RATE, 1)
            await way.end()
        for shot in line._ready:
            heard.append(way.sound_of(shot))
        return heard

    heard = asyncio.run(spoken())
    border = next(place for place, shot in enumerate(line._ready) if shot.last) + 1
    for sound, part in ((first, heard[:border]), (second, heard[border:])):
        assert np.array_equal(np.frombuffer(b"".join(part), np.int16)[: len(sound)], sound)


def _run_pipecat(line: _Line, frames: list[Frame]) -> list[Frame]:
    down, _ = asyncio.run(run_test(LsxVideoService(line), frames_to_send=frames))
    return list(down)


def test_pipecat() -> None:
    line, sound = _Line(), _sound(1.0)
    said = [TTSAudioRawFrame(piece, RATE, 1) for piece in _pieces(sound, 480)]
    down = _run_pipecat(line, [TTSStartedFrame(), *said, TTSStoppedFrame()])
    heard = [frame for frame in down if isinstance(frame, TTSAudioRawFrame)]
    assert all((frame.sample_rate, frame.num_channels, len(frame.audio)) == (RATE, 1, 1920) for frame in heard)
    assert np.array_equal(np.frombuffer(b"".join(f.audio for f in heard), np.int16)[: len(sound)], sound)
    pictures = [frame for frame in down if isinstance(frame, OutputImageRawFrame)]
    red = [frame for frame in pictures if frame.image[0] == 255]
    assert len(red) == len(heard) == 25
    assert all((frame.size, frame.format, len(frame.image)) == ((64, 48), "RGB", 64 * 48 * 3) for frame in pictures)
    assert all(frame.sync_with_audio == (frame.image[0] == 255) for frame in pictures)
    places = {kind: [i for i, frame in enumerate(down) if isinstance(frame, kind)] for kind in (TTSStoppedFrame,)}
    assert len(places[TTSStoppedFrame]) == 1  # when it is true
    assert places[TTSStoppedFrame][0] > max(i for i, frame in enumerate(down) if frame is red[-1])


def test_pipecat_is_interrupted() -> None:
    line = _Line()
    said = [TTSAudioRawFrame(piece, RATE, 1) for piece in _pieces(_sound(30), 4800)]
    down = _run_pipecat(line, [TTSStartedFrame(), *said, SleepFrame(sleep=0.1), InterruptionFrame(), SleepFrame()])
    assert "clear" in line.events
    heard = [frame for frame in down if isinstance(frame, TTSAudioRawFrame)]
    assert len(heard) < 700
    interrupted = next(i for i, frame in enumerate(down) if isinstance(frame, InterruptionFrame))
    assert len([frame for frame in down[interrupted:] if isinstance(frame, TTSAudioRawFrame)]) <= 1


class _Room:
    """A room without a server: what is published to it goes nowhere. The runner, its clock and its sources are real."""

    def __init__(self) -> None:
        self.published: list[Any] = []
        self.local_participant = self

    def on(self, *_: Any) -> None: ...

    def off(self, *_: Any) -> None: ...

    def isconnected(self) -> bool:
        return True

    async def publish_track(self, track: Any, options: Any) -> _Room:
        del options
        self.published.append(track)
        return self

    async def wait_for_subscription(self) -> None: ...


def _in_livekit(line: _Line, act: Callable[[QueueAudioOutput, list[Any]], Any]) -> list[Any]:
    """Events of playback, and what the generator gave, while `act` speaks."""
    told: list[Any] = []

    class Watched(LsxVideoGenerator):
        async def __aiter__(self) -> AsyncIterator[Any]:
            async for frame in super().__aiter__():
                told.append(frame)
                yield frame

    async def run() -> None:
        output, room = QueueAudioOutput(sample_rate=RATE), _Room()
        output.on("playback_finished", lambda event: told.append(("finished", event)))
        generator = Watched(line, RATE)
        made: Any = room
        runner = AvatarRunner(made, audio_recv=output, video_gen=generator, options=generator.options)
        await runner.start()
        try:
            await asyncio.wait_for(act(output, told), 30)
        finally:
            await runner.aclose()
        assert {type(track) for track in room.published} == {rtc.LocalAudioTrack, rtc.LocalVideoTrack}

    asyncio.run(run())
    return told


async def _speak(output: QueueAudioOutput, sound: NDArray[np.int16]) -> None:
    for piece in _pieces(sound, 240):
        await output.capture_frame(rtc.AudioFrame(piece, RATE, 1, len(piece) // 2))


async def _until(told: list[Any], count: int) -> None:
    while sum(isinstance(one, tuple) for one in told) < count:
        await asyncio.sleep(0.01)


def test_livekit() -> None:
    line, sound = _Line(), _sound(1.0)

    async def act(output: QueueAudioOutput, told: list[Any]) -> None:
        await _speak(output, sound)
        output.flush()
        await _until(told, 1)

    told = _in_livekit(line, act)
    heard = [one for one in told if isinstance(one, rtc.AudioFrame)]
    assert [(one.sample_rate, one.num_channels, one.samples_per_channel) for one in heard] == [(RATE, 1, 960)] * 25
    assert np.array_equal(np.concatenate([np.frombuffer(one.data, np.int16) for one in heard])[: len(sound)], sound)
    pictures = [one for one in told if isinstance(one, rtc.VideoFrame)]
    assert (pictures[0].width, pictures[0].height, pictures[0].type) == (64, 48, rtc.VideoBufferType.RGB24)
    assert sum(bytes(one.data[:1]) == b"\xff" for one in pictures) == 25
    (finished,) = [one[1] for one in told if isinstance(one, tuple)]
    assert not finished.interrupted
    assert finished.playback_position == pytest.approx(1.0)


def test_livekit_is_interrupted() -> None:
    line = _Line()

    async def act(output: QueueAudioOutput, told: list[Any]) -> None:
        await _speak(output, _sound(20))
        output.flush()  # as the framework does, whose speech comes faster than it is spoken
        while not any(isinstance(one, rtc.AudioFrame) for one in told):
            await asyncio.sleep(0.005)
        output.clear_buffer()
        await _until(told, 1)
        await _speak(output, _sound(0.4))
        output.flush()
        await _until(told, 2)

    told = _in_livekit(line, act)
    first, second = (one[1] for one in told if isinstance(one, tuple))
    assert (first.interrupted, second.interrupted) == (True, False)
    assert first.playback_position < 10
    assert second.playback_position == pytest.approx(0.4, abs=0.05)
    assert line.events == ["end", "clear", "end"]
