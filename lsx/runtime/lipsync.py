"""LipSync: a bundle, opened and ready to run."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, BinaryIO, Literal, Unpack

import numpy as np

from lsx.bundle.bundle import Bundle
from lsx.core.cancel import CancelToken
from lsx.core.footage import CompareLayout, FootageKeywords, FootageOptions, Length, Mix, Segments
from lsx.core.graph_names import FACE_GRAPHS, LOOP_GRAPHS, MODEL_GRAPHS
from lsx.core.keywords import check_callable, check_kind, options_of, parameters_of, split_keywords
from lsx.core.sampling import SamplingKeywords, SamplingOptions
from lsx.core.tensors import Frame
from lsx.core.threaded_stages import StageTimes
from lsx.denoising.chunk_program import keeps_latents
from lsx.denoising.chunk_runner import ChunkRunner, NoiseSource, seeded_noise
from lsx.denoising.executor import io_of
from lsx.denoising.executor_cache import ScheduleKey, executor_cache_for
from lsx.denoising.fallback import Fallback
from lsx.engines.engine import Engine
from lsx.engines.loading import AUTO, best_backend, check_record, load_engines
from lsx.engines.registry import EngineKeywords, EngineOptions, backend_named
from lsx.errors import StaleEngine, UsageError
from lsx.faces.alignment import Face
from lsx.faces.avatar import Avatar
from lsx.faces.compositing import read_paste_mask
from lsx.faces.detector import FaceDetector, detector_threads
from lsx.faces.retouch import Retouch
from lsx.media.comparison import LAYOUTS
from lsx.media.encoding import EncodeKeywords, EncodeOptions
from lsx.media.given import SoundInput, VideoInput
from lsx.media.targets import as_output
from lsx.runtime.avatar_video import AvatarVideo, faces_of
from lsx.runtime.face_aligner import FaceAligner, FoundFaces, FrameFaces
from lsx.runtime.face_choice import Detector, faces_for, given_faces
from lsx.runtime.frame_pipeline import FramePipeline
from lsx.runtime.frame_stream import FrameStream, frames_of, outcome_of
from lsx.runtime.live_runs import LiveRuns, ended_by
from lsx.runtime.run_files import (
    is_face_required,
    open_inputs,
    sound_notes,
    speaker_notes,
    write_frames,
    writer_like,
)
from lsx.runtime.run_plan import RunPlan, plan_for_samples
from lsx.runtime.run_progress import watched
from lsx.runtime.run_report import Progress, ProgressCallback, RunReport
from lsx.runtime.seams import SeamMeter
from lsx.runtime.source_frames import indexed, stream_plan
from lsx.runtime.voices import voices_of

__all__ = ["LipSync"]


class StreamKeywords(SamplingKeywords, FootageKeywords, total=False):
    """The fields of SamplingOptions and FootageOptions as keywords."""


class RunKeywords(StreamKeywords, EncodeKeywords, total=False):
    """The fields of SamplingOptions, FootageOptions and EncodeOptions as keywords."""

    length: Length | None
    compare_layout: CompareLayout
    segments: Segments
    mix: Mix


class LipSync:
    """A bundle's engines, loaded once. Open with `LipSync.open`; close it, or use it as a context manager.

    It may be used from any number of threads. Each run owns its state; the engines, the device's buffers and the
    executor are one run's at a time, a chunk of 16 frames each, in the order of the asking. So several runs at once
    give, byte for byte, what each gives alone. Closing ends the runs under way with EngineClosed.

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
    ) -> None:
        """check_settings : raises what forbids a run with these settings."""
        self.bundle = bundle
        self.backend = backend
        self._engines = engines
        loop = {graph: engines[graph] for graph in LOOP_GRAPHS}
        self._executors = executor_cache_for(loop, bundle.model, cuda_graph=cuda_graph)
        self._fallback = Fallback(
            load_fallback, lambda loaded: executor_cache_for(loaded, bundle.model, cuda_graph=cuda_graph)
        )
        self._check_settings = check_settings
        self._runs = LiveRuns(str(bundle.path))

    @classmethod
    def open(
        cls,
        path: Path | str | Bundle,
        backend: str = AUTO,
        engine: EngineOptions | None = None,
        *,
        cuda_graph: bool = True,
        require_verified: bool = False,
        **keywords: Unpack[EngineKeywords],
    ) -> LipSync:
        """Load the engines of the bundle at `path`.

        Parameters
        ----------
        path : a bundle's folder, or an opened Bundle.
        backend : `auto` takes the best that works here: tensorrt, tensorrt-rtx, onnxruntime, torch.
        engine, keywords : how engines are loaded, as EngineOptions, by its fields, or both, where a keyword goes first.
        cuda_graph : on a GPU, capture each schedule into a CUDA graph and launch that.
        require_verified : refuse a bundle without a record of `lsx verify` for this backend, and every run with
            settings that no record covers. Without it TensorRT plans and quantized graphs are warned of.

        Raises UsageError, BundleError, IntegrityError, NotVerified, BackendUnavailable, EngineError.

        Examples
        --------
        >>> from lsx import LipSync
        >>> with LipSync.open(BUNDLE, threads=1) as lipsync:
        ...     lipsync.backend
        'onnxruntime'
        """
        bundle = path if isinstance(path, Bundle) else Bundle.open(path)
        options = options_of(EngineOptions, engine, keywords, "engine")
        chosen = best_backend(bundle, backend)
        check_record(bundle, chosen, required=require_verified, provider=options.provider)
        fallback = bundle.fallback()
        reason = None if fallback is None else backend_named(chosen).reason_unsupported(fallback)
        if reason is not None:
            raise StaleEngine(f"the bundle's fallback does not run here: {reason}")
        with ExitStack() as opened:
            engines = load_engines(bundle, chosen, MODEL_GRAPHS, options)
            for loaded in engines.values():
                opened.enter_context(loaded)
            # some milliseconds each, on threads of their own beside the loop
            engines |= load_engines(bundle, "onnxruntime", FACE_GRAPHS, EngineOptions(threads=1))
            opened.pop_all()
        return cls(
            bundle,
            engines,
            backend_named(chosen).name,
            cuda_graph=cuda_graph,
            load_fallback=None if fallback is None else lambda: load_engines(fallback, chosen, LOOP_GRAPHS, options),
            check_settings=lambda settings: check_record(
                bundle, chosen, required=require_verified, provider=options.provider, options=settings
            ),
        )

    def close(self) -> None:
        """End the runs under way, whose callers get EngineClosed, and free the engines. Waits for at most a chunk.

        It may be called from any thread, also from a run's own callbacks; there it does not wait.

        Examples
        --------
        >>> from lsx import LipSync
        >>> lipsync = LipSync.open(BUNDLE, threads=1)
        >>> lipsync.close()
        >>> lipsync.run(VIDEO, AUDIO, "out.mp4")
        Traceback (most recent call last):
        ...
        lsx.errors.EngineClosed: ...
        """
        self._runs.close(self._free)

    def _free(self) -> None:
        self._executors.close()
        self._fallback.close()
        for engine in self._engines.values():
            engine.close()

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
        return dict(self._engines)

    @property
    def schedules(self) -> dict[ScheduleKey, int]:
        """Device bytes of every schedule that is kept ready, by (steps, guidance batch, cache interval, sampler).

        On a CPU they are 0. Weights and activation memory, which schedules share, are apart.

        Examples
        --------
        >>> with LipSync.open(BUNDLE, threads=1) as lipsync:
        ...     taken = lipsync.warm_up(SamplingOptions(steps=2))
        ...     [key.steps for key in lipsync.schedules]
        [2]
        """
        return self._executors.costs()

    def detector(self) -> FaceDetector:
        """The bundle's own face detector: frame to Face or None.

        Examples
        --------
        >>> import numpy as np
        >>> with LipSync.open(BUNDLE, threads=1) as lipsync:
        ...     lipsync.detector()(np.zeros((256, 256, 3), np.uint8)) is None
        True
        """
        return FaceDetector(self._engines, self.bundle.manifest.faces.family)

    def warm_up(self, options: SamplingOptions) -> dict[str, float]:
        """Make ready for clips with these options: take memory, run once, capture. The first clip does it otherwise.

        Returns the seconds of `warm up` and `capture` on a GPU; on a CPU there are none. Raises UsageError,
        EngineError, OutOfDeviceMemory, EngineClosed.

        Examples
        --------
        >>> with LipSync.open(BUNDLE, threads=1) as lipsync:
        ...     lipsync.warm_up(SamplingOptions(steps=2))
        {}
        """
        check_kind("options", options, SamplingOptions)
        self._runs.check()
        self._check_settings(options)
        with self._executors.lent(options, CancelToken()) as executor:
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
        progress: ProgressCallback | None = None,
        cancel: CancelToken | None = None,
        **keywords: Unpack[RunKeywords],
    ) -> RunReport:
        """Lip-sync `video` to `audio`, and write `output` (.mp4, .mov, .mkv) when it is whole.

        The output lasts as long as the audio, rounded up to a frame: a shorter video plays back and forth, a longer
        one is cut. `footage` changes that.

        Parameters
        ----------
        video : a path; an open binary file; frames uint8 [frames, height, width, 3] RGB at 25 a second; or what
            `open_inputs` made of one. A file is copied to a temporary one first: video is read by seeking. Or an
            avatar, or its path: its faces and their latents are not computed again.
        audio : a path; an open binary file; or samples int16 or float32 (-1..1) [samples], mono at 16 kHz. None where
            `segments` of FootageOptions has the sounds.
        output : a path; or an open binary file, or `-` for standard output, which get fragmented MP4 while it is made.
        sampling, keywords : how it is denoised, as SamplingOptions, by its fields (steps, guidance, cache_interval,
            seed, sampler), or both, where a keyword goes first.
        footage, keywords : which part of the video, when the sound begins, how long the result lasts: the same of
            FootageOptions (length, extend, remap_limit, audio_offset, start, end, fps, speaker, faces, detect_every,
            segments, mix, overlap, colour_match, sharpen, mask, silence, audio_context, compare_layout).
        encode, keywords : the same of EncodeOptions (codec, encoder, preset, pix_fmt, audio_codec, crf).
        compare : a path; also write original and result there, as `compare_layout` of FootageOptions says.
        no_face : `pass` leaves frames without a face as they are, `error` stops at the first.
        progress : called from the calling thread: at the start, after every frame, and between denoising steps.
        cancel : ends the run within one chunk when it is cancelled, from any thread.

        Raises UsageError, NotVerified, MediaError, FaceNotFound, OutputError, EngineError; Cancelled by `cancel`;
        EngineClosed by `close`. Nothing is left under the output's name then.

        Examples
        --------
        >>> from lsx import LipSync
        >>> with LipSync.open(BUNDLE, threads=1) as lipsync:
        ...     report = lipsync.run(VIDEO, AUDIO, "out.mp4", steps=1)
        >>> report.frames
        16
        """
        kinds = split_keywords(keywords, SamplingOptions, FootageOptions, EncodeOptions)
        options = options_of(SamplingOptions, sampling, kinds[0], "sampling")
        footage = options_of(FootageOptions, footage, kinds[1], "footage")
        encode = options_of(EncodeOptions, encode, kinds[2], "encode")
        check_callable("progress", progress)
        self._runs.check(cancel)
        self._check_settings(options)
        target, require_face = as_output(output), is_face_required(no_face)
        reader, _, plan, sound, footage = open_inputs(
            video, audio, target, bundle=self.bundle, compare=compare, encode=encode, footage=footage
        )
        timeline = plan.timeline
        shown = timeline.shown()
        beside = None if compare is None else Path(compare)

        def looked(done: int, frames: int) -> None:
            self._runs.check(cancel)
            if progress is not None:
                progress(Progress(frames=0, total=timeline.frames, fps=0.0, looked=done, to_look=frames))

        faces = faces_of(reader, footage, timeline, self.detector(), self.bundle, looked)
        avatar = reader.avatar if isinstance(reader, AvatarVideo) else None
        threads = detector_threads(footage.detect_every)
        aligner = _aligner(plan, faces, threads=threads, require_face=require_face)
        pipeline = self._pipeline(plan, options, aligner, footage=footage, avatar=avatar)
        pipeline.frames_owned = beside is None
        started = time.perf_counter()
        times = StageTimes()
        frames = self._runs.start(pipeline.stages(reader.at(timeline.source(pipeline.chunker.source_length))), times)
        with ExitStack() as stack:
            stack.enter_context(closing(frames))
            stack.enter_context(ended_by(cancel, frames))
            writer = stack.enter_context(writer_like(target, reader, encode, sound, None, shown))
            layout = LAYOUTS[footage.compare_layout]
            comparison = None if beside is None else writer_like(beside, reader, encode, sound, layout, shown)
            if comparison is not None:
                stack.enter_context(comparison)
            made = watched(frames, pipeline, options.steps, progress)
            times.busy["mux"] = write_frames(made, writer, comparison, layout)
        times.waits["infer"] += pipeline.runner.waited
        times.split("infer", pipeline.runner.seconds)
        return RunReport(
            output=target if isinstance(target, Path) else None,
            frames=pipeline.chunker.length,
            seconds=time.perf_counter() - started,
            faceless=tuple(pipeline.aligner.faceless),
            stages=dict(times.busy),
            waits=dict(times.waits),
            bottleneck=times.bottleneck or "",
            notes=(*sound_notes(sound.samples()), *speaker_notes(faces.choices, reader.clock)),
            choices=faces.choices,
            source_frames=timeline.used,
            fps=float(shown.rate),
            speed=timeline.speed,
            chunks=pipeline.chunker.count,
            silent_chunks=pipeline.chunker.silent,
            saved_chunks=max(pipeline.chunker.whole - pipeline.runner.submitted, 0),
            seam=pipeline.seams.ratio,
            blended=pipeline.blended,
            repeated_chunks=pipeline.runner.repeated,
        )

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
        cancel: CancelToken | None = None,
        **keywords: Unpack[StreamKeywords],
    ) -> FrameStream:
        """Yield lip-synced frames as they are ready; close what this returns when you do not take them all.

        Parameters
        ----------
        frames : uint8 [H, W, 3] RGB at 25 a second, all of one size. They are not painted on. A sequence is read by
            index, from another thread; a one-shot iterable is too, and its last GiB is kept for playing again.
        samples : int16 or float32 (-1..1) [samples], mono at 16 kHz.
        length : frames to make, or a word as of FootageOptions; default the audio's, rounded up.
        sampling, keywords : how it is denoised, as SamplingOptions, by its fields (steps, guidance, cache_interval,
            seed, sampler), or both, where a keyword goes first.
        footage, keywords : the same of FootageOptions (extend, remap_limit, audio_offset, start, end, fps, speaker,
            detect_every, overlap, colour_match, sharpen, mask, silence, audio_context). What
            needs the number of frames needs a sequence.
        detector : frame to Face or None, called once for each source frame, in order, instead of `speaker`.
        noise : (name, shape) to float32 array, called with "latents" once, and with "masked.<chunk>" and
            "reference.<chunk>" for each chunk; default seeded.
        cancel : ends the stream within one chunk when it is cancelled, from any thread, as closing it does.

        Frames without a face pass through, as the very array that was given. Raises at once or when asked for a frame:
        UsageError, MediaError, EngineError; Cancelled by `cancel`; EngineClosed by `close`; FaceNotFound at the end
        when no frame had a face.

        Examples
        --------
        >>> import numpy as np
        >>> from lsx import Face, LipSync
        >>> frames = [np.full((256, 256, 3), 90, np.uint8)] * 16
        >>> face = Face(points=np.array([[100.0, 100], [150, 100], [125, 130]]))
        >>> with LipSync.open(BUNDLE, threads=1) as lipsync:
        ...     with lipsync.stream(frames, np.ones(4000, np.int16), steps=1, detector=lambda frame: face) as stream:
        ...         next(stream).shape
        (256, 256, 3)
        """
        kinds = split_keywords(keywords, SamplingOptions, FootageOptions)
        options = options_of(SamplingOptions, sampling, kinds[0], "sampling")
        asked: dict[str, Any] = {} if length is None or isinstance(length, int) else {"length": length}
        footage = options_of(FootageOptions, footage, kinds[1] | asked, "footage")
        if not isinstance(frames, Iterable):
            raise UsageError(f"frames is {frames!r}; give frames uint8 [height, width, 3] RGB, as many as you like")
        check_callable("detector", detector)
        check_callable("noise", noise)
        self._runs.check(cancel)
        self._check_settings(options)
        frames = list(frames) if isinstance(frames, np.ndarray) else frames
        if footage.segments is not None:
            raise UsageError("segments have sounds of their own, and a stream has the one that is given; use run")
        timeline, samples = stream_plan(frames, samples, footage, length if isinstance(length, int) else None)
        choice = (
            faces_for(footage, self.detector(), None, timeline)
            if detector is None
            else given_faces(_checked(detector), footage)
        )
        plan = plan_for_samples(timeline, samples, footage)
        faces = FoundFaces(choice, self.bundle.model.resolution)
        threads = detector_threads(footage.detect_every) if detector is None else 1
        aligner = _aligner(plan, faces, threads=threads)
        pipeline = self._pipeline(plan, options, aligner, footage=footage, noise=noise)
        source = indexed(frames, timeline, pipeline.chunker.source_length)
        chain = self._runs.start(pipeline.stages(source), StageTimes())
        return FrameStream(chain, cancel)

    @parameters_of(run)
    async def arun(self, *arguments: Any, cancel: CancelToken | None = None, **options: Any) -> RunReport:
        """Call `run` on a thread of its own. Cancelling the task stops the work and removes the partial file first.

        Parameters and errors as in `run`; `progress` is called from that thread.

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
        >>> import numpy as np
        >>> frames = [np.full((256, 256, 3), 90, np.uint8)] * 16
        >>> face = Face(points=np.array([[100.0, 100], [150, 100], [125, 130]]))
        >>> async def main():
        ...     with LipSync.open(BUNDLE, threads=1) as lipsync:
        ...         made = lipsync.astream(frames, np.ones(10240, np.int16), steps=1, detector=lambda frame: face)
        ...         return len([frame async for frame in made])
        >>> asyncio.run(main())
        16
        """
        return frames_of(lambda: self.stream(*arguments, **options))

    def _pipeline(
        self,
        plan: RunPlan,
        options: SamplingOptions,
        aligner: FaceAligner,
        *,
        footage: FootageOptions,
        noise: NoiseSource | None = None,
        avatar: Avatar | None = None,
    ) -> FramePipeline:
        """avatar : where the chunks' moments come from."""
        model = self.bundle.model
        chunker = plan.chunker(model.frames, footage.overlap)
        return FramePipeline(
            aligner=aligner,
            chunker=chunker,
            runner=ChunkRunner(
                self._executors.lender(options),
                model,
                noise or seeded_noise(options.seed),
                options.guidance,
                lambda: self._fallback.lender(options),
                None if avatar is None else avatar.mask,
                options.steps if footage.overlap and keeps_latents(io_of(self._engines)) else 0,
            ),
            voices=voices_of(plan, self._engines["audio_encoder"], model, footage, chunker.source_length),
            retouch=Retouch(colour_match=footage.colour_match, sharpen=footage.sharpen),
            mask=read_paste_mask(footage.mask),
            seams=SeamMeter(plan.stride),
        )


def _checked(detector: Detector) -> Detector:
    """The same, whose answers are looked at: UsageError where one is neither a Face nor None."""

    def look(frame: Frame) -> Face | None:
        found = detector(frame)
        if found is not None:
            check_kind("what the detector gave", found, Face)
        return found

    return look


def _aligner(plan: RunPlan, faces: FrameFaces, *, threads: int, require_face: bool = False) -> FaceAligner:
    """threads : on which frames are looked at."""
    return FaceAligner(
        faces=faces,
        length=plan.timeline.frames,
        require_face=require_face,
        needed=plan.spoken,
        clock=plan.timeline.clock,
        detector_threads=threads,
    )
