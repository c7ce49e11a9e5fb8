"""A live talker: sound goes in as it comes, frames come out one after the other, spoken ones where there are any."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsx.core.sampling import SamplingOptions
from lsx.core.tensors import Frame
from lsx.core.threaded_stages import Stage, StageTimes, Stopped
from lsx.errors import EngineClosed
from lsx.faces.avatar import Avatar
from lsx.faces.retouch import Retouch
from lsx.runtime.face_aligner import AlignedFrame
from lsx.runtime.live.frame import Latency, LiveFrame
from lsx.runtime.live.loop import AvatarLoop
from lsx.runtime.live.playhead import FADE, Playhead
from lsx.runtime.live.speech import LiveSpeech, Rhythm, SpokenChunk, Utterance
from lsx.runtime.live.voice import Group, Voice, mixed
from lsx.runtime.live_runs import LiveRuns
from lsx.runtime.loaded_bundle import LoadedBundle

__all__ = ["LiveTalker"]

_REMEMBERED = 1000  # latencies


@dataclass(frozen=True, slots=True, eq=False)
class _Made:
    """A frame that was made, before it is shown."""

    group: Group
    item: AlignedFrame
    image: Frame
    own: Frame
    samples: NDArray[np.int16]
    first: bool
    """Whether it is its utterance's first."""
    last: bool


class LiveTalker:
    """An avatar that speaks what it is given while it is given. Made by `LipSync.live`; use it as a context manager.

    `say`, `end` and `clear` may be called from any thread; `take` gives frame after frame, and is to be called 25 times
    a second: spoken frames as soon as they are there, and otherwise the avatar as it idles. The frames of an utterance
    depend on its sound, and on the avatar's position when it begins, and not on how the sound was cut into pieces.

    Examples
    --------
    >>> from lsx import SoundReader, prepare_avatar
    >>> avatar = prepare_avatar(BUNDLE, VIDEO, "anna.avatar")
    >>> with LipSync.open(BUNDLE, threads=1) as lipsync, lipsync.live(avatar, steps=1) as talker:
    ...     talker.say(SoundReader(AUDIO).samples())
    ...     talker.end()
    ...     spoken = [frame for frame in talker.spoken()]
    >>> len(spoken)
    16
    """

    def __init__(
        self,
        loaded: LoadedBundle,
        runs: LiveRuns,
        avatar: Avatar,
        options: SamplingOptions,
        overlap: int,
        priority: int,
        retouch: Retouch,
    ) -> None:
        """Raises UsageError, MediaError, EngineClosed."""
        model = loaded.bundle.model
        avatar.check(loaded.bundle)
        self._loaded, self._options, self._priority, self._retouch = loaded, options, priority, retouch
        self._mask = avatar.mask
        self.loop = AvatarLoop(avatar)
        self._rhythm = Rhythm(
            frames=model.frames, overlap=overlap, ahead=model.audio_window[1], samples=model.samples_per_frame
        )
        self._speech = LiveSpeech(self._rhythm)
        self._lock, self._taking = threading.Lock(), threading.Lock()
        self._voices: list[Voice] = []
        self._playhead = Playhead()
        self._computing = 0.5
        self._number = 0
        self.latencies: deque[Latency] = deque(maxlen=_REMEMBERED)
        """What the first frames of utterances took."""
        self._chain = runs.start(self._stages(), StageTimes())

    @property
    def width(self) -> int:
        """Pixels of a frame's width.

        Examples
        --------
        >>> from lsx import prepare_avatar
        >>> avatar = prepare_avatar(BUNDLE, VIDEO, "anna.avatar")
        >>> with LipSync.open(BUNDLE, threads=1) as lipsync, lipsync.live(avatar, steps=1) as talker:
        ...     talker.width
        640
        """
        return self.loop.width

    @property
    def height(self) -> int:
        """Pixels of a frame's height.

        Examples
        --------
        >>> from lsx import prepare_avatar
        >>> avatar = prepare_avatar(BUNDLE, VIDEO, "anna.avatar")
        >>> with LipSync.open(BUNDLE, threads=1) as lipsync, lipsync.live(avatar, steps=1) as talker:
        ...     talker.height
        480
        """
        return self.loop.height

    @property
    def pending(self) -> float:
        """Seconds of sound that wait to be spoken: a sender that is faster than speech looks at it.

        Examples
        --------
        >>> from lsx import prepare_avatar
        >>> avatar = prepare_avatar(BUNDLE, VIDEO, "anna.avatar")
        >>> with LipSync.open(BUNDLE, threads=1) as lipsync, lipsync.live(avatar, steps=1) as talker:
        ...     talker.pending
        0.0
        """
        return self._speech.pending

    def say(self, samples: Any) -> None:
        """Say a piece of sound of any length after what was said before: int16 or float32 (-1..1), mono at 16 kHz.

        It is spoken as soon as a chunk's sound is complete: 16 frames and 80 ms of it, later 12 frames more each.
        Raises UsageError for what are no samples.

        Examples
        --------
        >>> import numpy as np
        >>> from lsx import prepare_avatar
        >>> avatar = prepare_avatar(BUNDLE, VIDEO, "anna.avatar")
        >>> with LipSync.open(BUNDLE, threads=1) as lipsync, lipsync.live(avatar, steps=1) as talker:
        ...     talker.say(np.zeros(1600, np.int16))
        ...     talker.pending
        0.1
        """
        self._speech.say(samples)

    def end(self) -> None:
        """The utterance is whole: what its last chunk lacks is silence, and the mouth closes.

        Examples
        --------
        >>> import numpy as np
        >>> from lsx import prepare_avatar
        >>> avatar = prepare_avatar(BUNDLE, VIDEO, "anna.avatar")
        >>> with LipSync.open(BUNDLE, threads=1) as lipsync, lipsync.live(avatar, steps=1) as talker:
        ...     talker.say(np.zeros(1600, np.int16))
        ...     talker.end()
        ...     [frame.last for frame in talker.spoken()].index(True)
        15
        """
        self._speech.end()

    def clear(self) -> None:
        """Stop speaking, as when somebody interrupts: what was said and is not shown is forgotten, within 3 frames.

        Examples
        --------
        >>> import numpy as np
        >>> from lsx import prepare_avatar
        >>> avatar = prepare_avatar(BUNDLE, VIDEO, "anna.avatar")
        >>> with LipSync.open(BUNDLE, threads=1) as lipsync, lipsync.live(avatar, steps=1) as talker:
        ...     talker.say(np.zeros(160000, np.int16))
        ...     talker.clear()
        ...     talker.pending
        0.0
        """
        self._speech.clear()
        with self._lock:
            voices, self._voices = self._voices, []
            self._playhead.clear()
        for voice in voices:
            voice.clear()

    def take(self, wait: float = 0.0) -> LiveFrame:
        """The next frame: a spoken one where it is there within `wait` seconds, and otherwise an idle one.

        Raises EngineError, EngineClosed.

        Examples
        --------
        >>> from lsx import prepare_avatar
        >>> avatar = prepare_avatar(BUNDLE, VIDEO, "anna.avatar")
        >>> with LipSync.open(BUNDLE, threads=1) as lipsync, lipsync.live(avatar, steps=1) as talker:
        ...     [talker.take().number for _ in range(3)]
        [0, 1, 2]
        """
        with self._taking:
            frame = self._spoken(wait) or self._idle()
            self._number += 1
            return frame

    def ready(self, wait: float) -> bool:
        """Wait for a spoken frame, for `wait` seconds at most; whether one is there.

        Examples
        --------
        >>> from lsx import prepare_avatar
        >>> avatar = prepare_avatar(BUNDLE, VIDEO, "anna.avatar")
        >>> with LipSync.open(BUNDLE, threads=1) as lipsync, lipsync.live(avatar, steps=1) as talker:
        ...     talker.ready(0.0)
        False
        """
        return self._chain.ready(wait)

    def spoken(self) -> Iterator[LiveFrame]:
        """The frames of all that was said and ended, without any idle ones between: for files and tests.

        Examples
        --------
        >>> from lsx import SoundReader, prepare_avatar
        >>> avatar = prepare_avatar(BUNDLE, VIDEO, "anna.avatar")
        >>> with LipSync.open(BUNDLE, threads=1) as lipsync, lipsync.live(avatar, steps=1) as talker:
        ...     talker.say(SoundReader(AUDIO).samples())
        ...     talker.end()
        ...     next(talker.spoken()).image.shape
        (480, 640, 3)
        """
        while self._speech.is_speaking:
            if self._chain.ready(0.1):
                yield self.take()

    def close(self) -> None:
        """Stop, and wait until nothing of it is left: at most for the chunk under way.

        Examples
        --------
        >>> from lsx import prepare_avatar
        >>> avatar = prepare_avatar(BUNDLE, VIDEO, "anna.avatar")
        >>> with LipSync.open(BUNDLE, threads=1) as lipsync:
        ...     talker = lipsync.live(avatar, steps=1)
        ...     talker.close()
        """
        self.clear()
        self._chain.close()

    def __enter__(self) -> LiveTalker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _stages(self) -> list[Stage]:
        """Every stage of a talker, in order; frames are held two chunks ahead."""
        return [
            Stage("listen", lambda _: self._listen(), capacity=1, stop=self._stop),
            Stage("infer", self._infer, capacity=1),
            Stage("collect", self._collect, capacity=1),
            Stage("composite", self._composite, capacity=2 * self._rhythm.frames),
        ]

    def _stop(self) -> None:
        self._speech.close()
        with self._lock:
            voices = list(self._voices)
        for voice in voices:
            voice.runner.stop()

    def _listen(self) -> Iterator[Group]:
        while True:
            spoken = self._speech.take()
            if (voice := self._voice_of(spoken)) is not None:
                yield voice.group(spoken, self.loop.item)

    def _voice_of(self, spoken: SpokenChunk) -> Voice | None:
        """The utterance's voice, which begins where the avatar is, or will be; None where it was given up."""
        utterance = spoken.utterance
        with self._lock:
            if utterance.cleared:
                return None
            voice = next((one for one in self._voices if one.utterance is utterance), None)
            if voice is None:
                voice = self._new_voice(utterance, *self._playhead.begin())
                self._voices.append(voice)
            self._playhead.plan(voice.start + spoken.fresh.stop)
        return voice

    def _new_voice(self, utterance: Utterance, start: int, prompt: bool) -> Voice:
        loaded, options = self._loaded, self._options
        kept = self._rhythm.overlap > 0
        runner = loaded.runner(options, mask=self._mask, kept=kept, priority=self._priority)
        return Voice(
            utterance=utterance,
            start=start,
            prompt=prompt,
            runner=runner,
            encoder=loaded.engines["audio_encoder"],
            model=loaded.bundle.model,
            retouch=self._retouch,
        )

    def _infer(self, groups: Iterator[Group]) -> Iterator[Group]:
        for group in groups:
            with _given_up(group):
                group.voice.submit(group)
                yield group

    def _collect(self, groups: Iterator[Group]) -> Iterator[Group]:
        for group in groups:
            with _given_up(group):
                group.voice.collect(group)
                self._computing = group.computing
                yield group

    def _composite(self, groups: Iterator[Group]) -> Iterator[_Made]:
        for group in groups:
            if group.voice.utterance.cleared:
                continue
            group.voice.add(group)
            spoken, size = group.spoken, self._rhythm.samples
            for place, item in enumerate(group.items[-len(spoken.fresh) :]):
                frame = spoken.fresh[place]
                made, own = group.voice.finish(item)
                left = spoken.fresh.stop - 1 - frame if spoken.last else FADE
                share = min(frame + 1, left + 1, FADE + 1) / (FADE + 1)
                samples = spoken.sound[place * size : (place + 1) * size]
                last = spoken.last and not left
                yield _Made(group, item, mixed(made, own, share), own, samples, frame == 0, last)

    def _spoken(self, wait: float) -> LiveFrame | None:
        """The next frame that was made; None where none is there in time."""
        while self._chain.ready(wait):
            made = next(self._chain, None)
            if made is None:
                raise EngineClosed("the talker was closed; open another: LipSync.live(AVATAR)")
            wait = 0.0
            utterance = made.group.spoken.utterance
            if not utterance.cleared:
                return self._show(made)
            with self._lock:
                share = self._playhead.fade(made.item.index)
            if share is not None:  # what was given up, on the way back to the avatar's own mouth, in silence
                return self._silent(mixed(made.image, made.own, share))
        return None

    def _show(self, made: _Made) -> LiveFrame:
        utterance = made.group.spoken.utterance
        with self._lock:
            self._playhead.speak(made.item.index, made.last)
            if made.last:
                self._speech.forget(utterance)
                self._voices = [voice for voice in self._voices if voice is not made.group.voice]
        if made.first and made.group.voice.prompt:
            total = time.perf_counter() - made.group.spoken.complete
            self.latencies.append(Latency(total, made.group.computing, made.group.waited))
        return LiveFrame(
            number=self._number,
            image=made.image,
            samples=made.samples,
            speaking=True,
            utterance=utterance.number,
            last=made.last,
        )

    def _idle(self) -> LiveFrame:
        with self._lock:
            position = self._playhead.idle(self._computing)
        return self._silent(self.loop.item(position).frame)

    def _silent(self, image: Frame) -> LiveFrame:
        silence = np.zeros(self._rhythm.samples, np.int16)
        return LiveFrame(number=self._number, image=image, samples=silence, speaking=False)


@contextmanager
def _given_up(group: Group) -> Iterator[None]:
    """A block that ends quietly where its utterance was given up."""
    try:
        yield
    except Stopped:
        if not group.voice.utterance.cleared:
            raise
