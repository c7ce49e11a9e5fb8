"""LipSync: a bundle, opened and ready to run."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO, Literal, Unpack

from lsx.bundle.bundle import Bundle
from lsx.bundle.sampling import sampling_of
from lsx.core.cancel import CancelToken
from lsx.core.footage import FootageOptions, Length
from lsx.core.keywords import check_callable, options_of, parameters_of, plain_number, split_keywords
from lsx.core.sampling import SamplingKeywords, SamplingOptions
from lsx.core.tensors import Frame
from lsx.core.threaded_stages import StageTimes
from lsx.core.turns import PRIORITY, check_priority
from lsx.denoising.chunk_runner import NoiseSource
from lsx.denoising.executor_cache import ScheduleKey
from lsx.engines.engine import Engine
from lsx.engines.loading import AUTO
from lsx.engines.registry import EngineKeywords, EngineOptions
from lsx.faces.avatar import Avatar
from lsx.faces.detector import FaceDetector
from lsx.faces.retouch import Retouch
from lsx.media.encoding import EncodeOptions
from lsx.media.given import SoundInput, VideoInput
from lsx.media.targets import as_output
from lsx.runtime.admission import Admission
from lsx.runtime.face_choice import Detector
from lsx.runtime.file_run import FileRun
from lsx.runtime.frame_run import FrameRun
from lsx.runtime.frame_stream import FrameStream, frames_of, outcome_of
from lsx.runtime.live.talker import LiveTalker
from lsx.runtime.live_runs import LiveRuns
from lsx.runtime.loaded_bundle import LoadedBundle, load_run_engines
from lsx.runtime.run_files import is_face_required, open_inputs
from lsx.runtime.run_keywords import RunKeywords, StreamKeywords
from lsx.runtime.run_report import ProgressCallback, RunReport
from lsx.runtime.run_sections import Resumption

__all__ = ["LipSync"]


class LipSync:
    """A bundle's engines, loaded once. Open with `LipSync.open`; close it, or use it as a context manager.

    It may be used from any number of threads. Each run owns its state; engines, buffers and executor are one run's at a
    time, a chunk of 16 frames each. So several runs at once give, byte for byte, what each gives alone, in less time.

    Examples
    --------
    >>> from lsx import LipSync
    >>> with LipSync.open(BUNDLE, threads=1) as lipsync:
    ...     lipsync.run(VIDEO, AUDIO, "out.mp4", steps=1).frames
    16
    """

    def __init__(
        self,
        bundle: Bundle,
        engines: dict[str, Engine],
        backend: str,
        *,
        cuda_graph: bool = True,
        load_fallback: Callable[[], dict[str, Engine]] | None = None,
        check_settings: Callable[[SamplingOptions], None] = lambda _: None,
        run_memory: int | None = None,
    ) -> None:
        """check_settings : raises what forbids a run with these settings."""
        self.bundle = bundle
        self.backend = backend
        self._loaded = LoadedBundle(bundle, engines, cuda_graph=cuda_graph, load_fallback=load_fallback)
        self._check_settings = check_settings
        self._runs = LiveRuns(str(bundle.path), Admission(run_memory))

    @classmethod
    def open(
        cls,
        path: Path | str | Bundle,
        backend: str = AUTO,
        engine: EngineOptions | None = None,
        *,
        cuda_graph: bool = True,
        require_verified: bool = False,
        run_memory: int | None = None,
        **keywords: Unpack[EngineKeywords],
    ) -> LipSync:
        """Load the engines of the bundle at `path`, its folder, or an opened Bundle.

        Parameters
        ----------
        backend : `auto` takes the best that works here: tensorrt, tensorrt-rtx, onnxruntime, torch.
        engine, keywords : how engines are loaded, as EngineOptions, by its fields, or both, where a keyword goes first.
        cuda_graph : on a GPU, capture each schedule into a CUDA graph and launch that.
        require_verified : refuse bundles and settings without a record of `lsx verify` for this backend; without it
            TensorRT plans and quantized graphs are warned of.
        run_memory : bytes that the frames of all calls of `run` under way may take; default half of what is free. One
            that does not fit waits for others to end.

        Raises UsageError, BundleError, IntegrityError, NotVerified, BackendUnavailable, EngineError.

        Examples
        --------
        >>> with LipSync.open(BUNDLE, threads=1) as lipsync:
        ...     lipsync.backend
        'onnxruntime'
        """
        bundle = path if isinstance(path, Bundle) else Bundle.open(path)
        options = options_of(EngineOptions, engine, keywords, "engine")
        loaded = load_run_engines(bundle, backend, options, require_verified=require_verified)
        return cls(
            bundle,
            loaded.engines,
            loaded.backend,
            cuda_graph=cuda_graph,
            load_fallback=loaded.load_fallback,
            check_settings=loaded.check_settings,
            run_memory=run_memory,
        )

    def close(self) -> None:
        """End the runs under way, whose callers get EngineClosed, and free the engines. From any thread.

        Waits for at most a chunk; in a run's own callbacks it does not wait.

        Examples
        --------
        >>> lipsync = LipSync.open(BUNDLE, threads=1)
        >>> lipsync.close()
        >>> lipsync.run(VIDEO, AUDIO, "out.mp4")
        Traceback (most recent call last):
        ...
        lsx.errors.EngineClosed: ...
        """
        self._runs.close(self._loaded.close)

    def __enter__(self) -> LipSync:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def engines(self) -> dict[str, Engine]:
        """The loaded engines by graph.

        Examples
        --------
        >>> with LipSync.open(BUNDLE, threads=1) as lipsync:
        ...     sorted(lipsync.engines)[:2]
        ['audio_encoder', 'face_detector']
        """
        return dict(self._loaded.engines)

    @property
    def schedules(self) -> dict[ScheduleKey, int]:
        """Device bytes of every schedule that is kept ready, without what they share; 0 on a CPU.

        Examples
        --------
        >>> with LipSync.open(BUNDLE, threads=1) as lipsync:
        ...     taken = lipsync.warm_up(SamplingOptions(steps=2))
        ...     [key.steps for key in lipsync.schedules]
        [2]
        """
        return self._loaded.executors.costs()

    def detector(self) -> FaceDetector:
        """The bundle's own face detector: frame to Face or None.

        Examples
        --------
        >>> import numpy as np
        >>> with LipSync.open(BUNDLE, threads=1) as lipsync:
        ...     lipsync.detector()(np.zeros((256, 256, 3), np.uint8)) is None
        True
        """
        return self._loaded.detector()

    def warm_up(self, options: SamplingOptions | None = None, **keywords: Unpack[SamplingKeywords]) -> dict[str, float]:
        """Take memory, run once and capture, as the first clip with these options would; the seconds of each on a GPU.

        options, keywords : as in `stream`. Raises UsageError, EngineError, OutOfDeviceMemory, EngineClosed.

        Examples
        --------
        >>> with LipSync.open(BUNDLE, threads=1) as lipsync:
        ...     lipsync.warm_up(steps=2)
        {}
        """
        options = sampling_of(self.bundle, options, keywords, "options")
        self._runs.check()
        self._check_settings(options)
        with self._loaded.executors.lent(options, CancelToken()) as executor:
            return dict(executor.preparation)

    def run(
        self,
        video: VideoInput | Avatar,
        audio: SoundInput | None,
        output: Path | str | BinaryIO,
        sampling: SamplingOptions | None = None,
        *,
        footage: FootageOptions | None = None,
        encode: EncodeOptions | None = None,
        compare: Path | str | None = None,
        no_face: Literal["pass", "error"] = "pass",
        resume_dir: Path | str | None = None,
        resume_every: float = 60.0,
        priority: int = PRIORITY,
        progress: ProgressCallback | None = None,
        cancel: CancelToken | None = None,
        **keywords: Unpack[RunKeywords],
    ) -> RunReport:
        """Lip-sync `video` to `audio`, and write `output` (.mp4, .mov, .mkv) when it is whole.

        The output lasts as long as the audio: a shorter video plays back and forth, a longer one is cut.

        Parameters
        ----------
        video : a path; an open binary file, which is copied first; frames uint8 [frames, height, width, 3] RGB at 25
            a second; what `open_inputs` made of one; an avatar, or its path.
        audio : a path; an open binary file; or samples int16 or float32 (-1..1) [samples], mono at 16 kHz. None where
            `segments` of FootageOptions has the sounds.
        output : a path; or an open binary file, or `-` for standard output, which get fragmented MP4 while it is made.
        sampling, footage, encode, keywords : how it is denoised, as SamplingOptions, by its fields (steps, guidance,
            cache_interval, seed, sampler), or both, where a keyword goes first; which frames, faces and sounds, the
            same of FootageOptions (length, extend, remap_limit, audio_offset, start, end, fps, speaker, faces,
            detect_every, segments, mix, overlap, colour_match, sharpen, mask, silence, audio_context, compare_layout);
            and of EncodeOptions (codec, encoder, preset, pix_fmt, audio_codec, crf).
        compare : a path; also write original and result there, as `compare_layout` says.
        no_face : `pass` leaves frames without a face as they are, `error` stops at the first.
        resume_dir : a folder that keeps each finished section, `resume_every` seconds of the result, until the whole is
            written. A run with the same inputs and options that was ended before goes on from there.
        priority : 1 to 9; where several runs want the engines, a smaller one goes first, and equal ones share them.
        progress : called from the calling thread: at the start, after every frame, on a CPU between denoising steps.
        cancel : ends the run within one chunk when it is cancelled, from any thread.

        Raises UsageError, NotVerified, MediaError, FaceNotFound, OutputError, EngineError; Cancelled by `cancel`;
        EngineClosed by `close`. Nothing is left under the output's name then.

        Examples
        --------
        >>> with LipSync.open(BUNDLE, threads=1) as lipsync:
        ...     report = lipsync.run(VIDEO, AUDIO, "out.mp4", steps=1)
        >>> report.frames
        16
        """
        kinds = split_keywords(keywords, SamplingOptions, FootageOptions, EncodeOptions)
        options = sampling_of(self.bundle, sampling, kinds[0], "sampling")
        footage = options_of(FootageOptions, footage, kinds[1], "footage")
        encode = options_of(EncodeOptions, encode, kinds[2], "encode")
        check_callable("progress", progress)
        priority = check_priority(priority)
        self._runs.check(cancel)
        self._check_settings(options)
        target = as_output(output)
        resumption = Resumption.of(resume_dir, resume_every, target, compare)
        inputs = open_inputs(video, audio, target, bundle=self.bundle, compare=compare, encode=encode, footage=footage)
        return FileRun(
            loaded=self._loaded,
            runs=self._runs,
            require_face=is_face_required(no_face),
            inputs=inputs,
            target=target,
            compare=None if compare is None else Path(compare),
            options=options,
            encode=encode,
            progress=progress,
            cancel=cancel,
            resumption=resumption,
            backend=self.backend,
            priority=priority,
        ).run()

    def stream(
        self,
        frames: Iterable[Frame],
        samples: Any,
        length: int | Length | None = None,
        sampling: SamplingOptions | None = None,
        *,
        footage: FootageOptions | None = None,
        detector: Detector | None = None,
        noise: NoiseSource | None = None,
        priority: int = PRIORITY,
        cancel: CancelToken | None = None,
        **keywords: Unpack[StreamKeywords],
    ) -> FrameStream:
        """Yield lip-synced frames as they are ready; close what this returns when you do not take them all.

        Parameters
        ----------
        frames : uint8 [H, W, 3] RGB at 25 a second, of one size; not painted on. A sequence is read by index, from
            another thread; of a one-shot iterable the last GiB is kept for playing again, and its length is unknown.
        samples : int16 or float32 (-1..1) [samples], mono at 16 kHz.
        length : frames to make, or a word as of FootageOptions; default the audio's, rounded up.
        sampling, keywords : how it is denoised, as SamplingOptions, by its fields (steps, guidance, cache_interval,
            seed, sampler), or both, where a keyword goes first.
        footage, keywords : the same of FootageOptions (extend, remap_limit, audio_offset, start, end, fps, speaker,
            detect_every, overlap, colour_match, sharpen, mask, silence, audio_context).
        detector : frame to Face or None, called once for each source frame, in order, instead of `speaker`.
        noise : (name, shape) to float32 array, called with "latents" once, and with "masked.<chunk>" and
            "reference.<chunk>" for each chunk; default seeded.
        priority : as of `run`.
        cancel : ends the stream within one chunk when it is cancelled, from any thread, as closing it does.

        Frames without a face pass through, as the very array that was given. Raises UsageError, MediaError,
        EngineError; Cancelled by `cancel`; EngineClosed by `close`; FaceNotFound at the end when no frame had a face.

        Examples
        --------
        >>> from lsx import LipSync, SoundReader, VideoReader
        >>> frames, samples = VideoReader(VIDEO).frames(), SoundReader(AUDIO).samples()
        >>> with LipSync.open(BUNDLE, threads=1) as lipsync:
        ...     with lipsync.stream(frames, samples, steps=1) as stream:
        ...         next(stream).shape
        (480, 640, 3)
        """
        kinds = split_keywords(keywords, SamplingOptions, FootageOptions)
        options = sampling_of(self.bundle, sampling, kinds[0], "sampling")
        length = plain_number(length)
        asked: dict[str, Any] = {} if length is None or isinstance(length, int) else {"length": length}
        footage = options_of(FootageOptions, footage, kinds[1] | asked, "footage")
        self._runs.check(cancel)
        self._check_settings(options)
        order = check_priority(priority)
        run = FrameRun(self._loaded, options, footage, detector=detector, noise=noise, priority=order)
        stages = run.stages(frames, samples, length if isinstance(length, int) else None)
        return FrameStream(self._runs.start(stages, StageTimes()), cancel)

    def live(
        self,
        avatar: Avatar | Path | str,
        sampling: SamplingOptions | None = None,
        *,
        overlap: int = 4,
        colour_match: bool = False,
        sharpen: float = 0.0,
        priority: int = 1,
        **keywords: Unpack[SamplingKeywords],
    ) -> LiveTalker:
        """An avatar that speaks what it is given while it is given, and idles in between; close what this returns.

        Parameters
        ----------
        avatar : of `lsx prepare`, or its path, at 25 frames a second; its frames are held in memory.
        sampling, keywords : as of `run`.
        overlap : frames that a chunk has in common with the one before, 0 to 8: a chunk shows what is left of 16.
        colour_match, sharpen : as of FootageOptions.
        priority : as of `run`; at a chunk's end speech goes before files.

        Raises UsageError, NotVerified, MediaError, EngineClosed.

        Examples
        --------
        >>> from lsx import prepare_avatar
        >>> avatar = prepare_avatar(BUNDLE, VIDEO, "anna.avatar")
        >>> with LipSync.open(BUNDLE, threads=1) as lipsync, lipsync.live(avatar, steps=1) as talker:
        ...     talker.take().image.shape
        (480, 640, 3)
        """
        options = sampling_of(self.bundle, sampling, keywords, "sampling")
        looks = FootageOptions(overlap=overlap, colour_match=colour_match, sharpen=sharpen)
        order = check_priority(priority)
        self._runs.check()
        self._check_settings(options)
        opened = avatar if isinstance(avatar, Avatar) else Avatar.open(avatar)
        retouch = Retouch(colour_match=looks.colour_match, sharpen=looks.sharpen)
        return LiveTalker(self._loaded, self._runs, opened, options, looks.overlap, order, retouch)

    @parameters_of(run)
    async def arun(self, *arguments: Any, cancel: CancelToken | None = None, **options: Any) -> RunReport:
        """Call `run` on a thread of its own, also its `progress`. Cancelling the task removes the partial file first.

        Examples
        --------
        >>> import asyncio
        >>> async def main():
        ...     with LipSync.open(BUNDLE, threads=1) as lipsync:
        ...         return await lipsync.arun(VIDEO, AUDIO, "out.mp4", steps=1)
        >>> asyncio.run(main()).frames
        16
        """
        return await outcome_of(lambda token: self.run(*arguments, cancel=token, **options), cancel)

    @parameters_of(stream)
    def astream(self, *arguments: Any, **options: Any) -> AsyncGenerator[Frame, None]:
        """Yield the frames of `stream`, waited for on a thread of its own.

        Cancelling the task, or closing this, stops the work. Parameters and errors as in `stream`.

        Examples
        --------
        >>> import asyncio
        >>> frames, samples = VideoReader(VIDEO).frames(), SoundReader(AUDIO).samples()
        >>> async def main():
        ...     with LipSync.open(BUNDLE, threads=1) as lipsync:
        ...         return len([frame async for frame in lipsync.astream(frames, samples, steps=1)])
        >>> asyncio.run(main())
        16
        """
        return frames_of(lambda: self.stream(*arguments, **options))
