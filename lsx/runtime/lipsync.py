"""LipSync: a bundle, opened and ready to run."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lsx.bundle.bundle import Bundle
from lsx.core.cancel import CancelToken
from lsx.core.graph_names import FACE_GRAPHS, LOOP_GRAPHS, MODEL_GRAPHS
from lsx.core.sampling import Sampler, SamplingOptions
from lsx.core.tensors import Frame
from lsx.core.threaded_stages import StageTimes
from lsx.denoising.chunk_runner import ChunkRunner, NoiseSource, seeded_noise
from lsx.denoising.executor_cache import ScheduleKey, executor_cache_for
from lsx.denoising.fallback import Fallback
from lsx.engines.engine import Engine
from lsx.engines.loading import AUTO, best_backend, check_record, load_engines
from lsx.engines.registry import backend_named
from lsx.errors import StaleEngine, UsageError
from lsx.faces.detector import FaceDetector
from lsx.media.audio_reader import SoundReader
from lsx.media.encoding import EncodeOptions
from lsx.media.video_reader import VideoReader
from lsx.runtime.audio_features import AudioTokens
from lsx.runtime.chunking import CallMaker, Detector
from lsx.runtime.frame_pipeline import FramePipeline, indexed
from lsx.runtime.frame_stream import FrameStream, frames_of, outcome_of
from lsx.runtime.live_runs import LiveRuns, ended_by
from lsx.runtime.run_files import open_inputs, writer_like
from lsx.runtime.run_report import Progress, ProgressCallback, RunReport

__all__ = ["LipSync"]


class LipSync:
    """A bundle's engines, loaded once. Open with `LipSync.open`; close it, or use it as a context manager.

    It may be used from any number of threads. Each run owns its state; the engines, the device's buffers and the
    executor are one run's at a time, a chunk of 16 frames each, in the order of the asking. So several runs at once
    give, byte for byte, what each gives alone. Closing ends the runs under way with EngineClosed.
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
            load_fallback, lambda wider: executor_cache_for(wider, bundle.model, cuda_graph=cuda_graph)
        )
        self._check_settings = check_settings
        self._runs = LiveRuns(str(bundle.path))

    @classmethod
    def open(
        cls,
        path: Path | str | Bundle,
        backend: str = AUTO,
        *,
        provider: str = "cpu",
        threads: int | None = None,
        reference: Path | str | None = None,
        cuda_graph: bool = True,
        trust_code: bool = False,
        require_verified: bool = False,
    ) -> LipSync:
        """Load the engines of the bundle at `path`.

        backend : `auto` takes the best that works here; provider, threads, reference, trust_code : as in
        `load_engine`; cuda_graph : on a GPU, capture each schedule into a CUDA graph and launch that;
        require_verified : refuse a bundle without a record of `lsx verify` for this backend, and every run with
        settings that no record covers. Without it TensorRT plans and quantised graphs are warned of.

        Raises BundleError, IntegrityError, NotVerified, BackendUnavailable, EngineError.
        """
        bundle = path if isinstance(path, Bundle) else Bundle.open(path)
        chosen = best_backend(bundle, backend)
        check_record(bundle, chosen, required=require_verified, provider=provider)

        options: dict[str, Any] = {
            "provider": provider,
            "threads": threads,
            "reference": reference,
            "trust_code": trust_code,
        }
        wider = bundle.fallback()
        reason = None if wider is None else backend_named(chosen).reason_unsupported(wider)
        if reason is not None:
            raise StaleEngine(f"the bundle's fallback does not run here: {reason}")
        with ExitStack() as opened:
            engines = load_engines(bundle, chosen, MODEL_GRAPHS, **options)
            for engine in engines.values():
                opened.enter_context(engine)
            # some milliseconds each, on threads of their own beside the loop
            engines |= load_engines(bundle, "onnxruntime", FACE_GRAPHS, threads=1)
            opened.pop_all()
        return cls(
            bundle,
            engines,
            backend_named(chosen).name,
            cuda_graph=cuda_graph,
            load_fallback=None if wider is None else lambda: load_engines(wider, chosen, LOOP_GRAPHS, **options),
            check_settings=lambda settings: check_record(
                bundle, chosen, required=require_verified, provider=provider, options=settings
            ),
        )

    def close(self) -> None:
        """End the runs under way, whose callers get EngineClosed, and free the engines. Waits for at most a chunk.

        It may be called from any thread, also from a run's own callbacks; there it does not wait.
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
        """The loaded engines by graph."""
        return dict(self._engines)

    @property
    def schedules(self) -> dict[ScheduleKey, int]:
        """Device bytes of every schedule that is kept ready, by (steps, guidance batch, cache interval, sampler).

        On a CPU they are 0. Weights and activation memory, which schedules share, are apart.
        """
        return self._executors.costs()

    def detector(self) -> FaceDetector:
        """The bundle's own face detector: frame to Face or None."""
        return FaceDetector(self._engines, self.bundle.manifest.faces.family)

    def warm_up(self, options: SamplingOptions) -> dict[str, float]:
        """Make ready for clips with these options: take memory, run once, capture. The first clip does it otherwise.

        Returns the seconds of `warm up` and `capture` on a GPU; on a CPU there are none. Raises EngineError,
        OutOfDeviceMemory, EngineClosed.
        """
        self._runs.check()
        self._check_settings(options)
        with self._executors.lent(options, CancelToken()) as executor:
            return dict(executor.preparation)

    def run(
        self,
        video: Path | str | VideoReader,
        audio: Path | str | SoundReader,
        output: Path | str,
        steps: int = 20,
        guidance: float = 1.5,
        seed: int = 0,
        progress: ProgressCallback | None = None,
        *,
        cache_interval: int | None = 3,
        sampler: Sampler = "ddim",
        codec: str | None = None,
        encoder: str | None = None,
        preset: str | None = None,
        pix_fmt: str | None = None,
        audio_codec: str = "aac",
        crf: int | None = None,
        compare: Path | str | None = None,
        no_face: Literal["pass", "error"] = "pass",
        cancel: CancelToken | None = None,
    ) -> RunReport:
        """Lip-sync the file `video` to the file `audio`, and write `output` (.mp4, .mov, .mkv) when it is whole.

        The output `-` is standard output, which gets fragmented MP4 while it is made.

        The output lasts as long as the audio, rounded up to a frame: a shorter video ping-pongs, a longer one is cut.

        Parameters
        ----------
        video, audio : paths, or what `open_inputs` made of them.
        steps, guidance, seed, cache_interval, sampler : see SamplingOptions.
        progress : called after every frame, from the calling thread.
        codec, encoder, preset, pix_fmt, audio_codec, crf : see EncodeOptions.
        compare : also write original and result side by side there.
        no_face : `pass` leaves frames without a face as they are, `error` stops at the first.
        cancel : ends the run within one chunk when it is cancelled, from any thread.

        Raises UsageError, NotVerified, MediaError, FaceNotFound, OutputError, EngineError; Cancelled by `cancel`;
        EngineClosed by `close`. Nothing is left under the output's name then.
        """
        options = SamplingOptions(
            steps=steps, guidance=guidance, cache_interval=cache_interval, seed=seed, sampler=sampler
        )
        encode = EncodeOptions(
            codec=codec, encoder=encoder, preset=preset, pix_fmt=pix_fmt, audio_codec=audio_codec, crf=crf
        )
        self._runs.check(cancel)
        self._check_settings(options)
        output, compare = Path(output), None if compare is None else Path(compare)
        reader, sound = open_inputs(video, audio, output, compare=compare, encode=encode, no_face=no_face)
        pipeline = self._pipeline(sound.samples(), None, options, None, None)
        pipeline.maker.require_face = no_face == "error"
        pipeline.frames_owned = compare is None
        started = time.perf_counter()
        times = StageTimes()
        frames = self._runs.start(pipeline.stages(reader.ping_pong(pipeline.maker.source_length)), times)
        with ExitStack() as stack:
            stack.enter_context(closing(frames))
            stack.enter_context(ended_by(cancel, frames))
            writer = stack.enter_context(writer_like(output, reader, encode, sound, 1))
            beside = None if compare is None else stack.enter_context(writer_like(compare, reader, encode, sound, 2))
            busy = 0.0
            for number, (result, original) in enumerate(frames, 1):
                before = time.perf_counter()
                writer.write(result)
                if beside is not None:
                    beside.write(np.concatenate([original, result], axis=1))
                now = time.perf_counter()
                busy += now - before
                if progress is not None:
                    progress(Progress(frames=number, total=pipeline.maker.length, fps=number / (now - started)))
        times.busy["mux"] = busy
        times.waits["infer"] += pipeline.denoiser.waited
        times.split("infer", pipeline.denoiser.seconds)
        return RunReport(
            output=output,
            frames=pipeline.maker.length,
            seconds=time.perf_counter() - started,
            faceless=tuple(pipeline.maker.faceless),
            stages=dict(times.busy),
            waits=dict(times.waits),
            bottleneck=times.bottleneck or "",
            repeated_calls=pipeline.denoiser.repeated,
        )

    def stream(
        self,
        frames: Iterable[Frame],
        samples: Any,
        length: int | None = None,
        steps: int = 20,
        guidance: float = 1.5,
        cache_interval: int | None = 3,
        seed: int = 0,
        detector: Detector | None = None,
        noise: NoiseSource | None = None,
        sampler: Sampler = "ddim",
        cancel: CancelToken | None = None,
    ) -> FrameStream:
        """Yield lip-synced frames as they are ready; close what this returns when you do not take them all.

        Parameters
        ----------
        frames : uint8 [H, W, 3] RGB at 25 a second, all of one size. They are not painted on. A sequence is read by
            index, from another thread; a one-shot iterable is too, and its last GiB is kept for ping-pong.
        samples : int16 or float32 (-1..1) mono at 16 kHz.
        length : frames to make; default the audio's, rounded up. Ping-pong beyond the frames given.
        steps, guidance, cache_interval, seed, sampler : see SamplingOptions.
        detector : frame to Face or None, called once for each source frame, in order; default the bundle's.
        noise : (name, shape) to float32 array, called with "latents" once, and with "masked.<call>" and
            "reference.<call>" for each call; default seeded.
        cancel : ends the stream within one chunk when it is cancelled, from any thread, as closing it does.

        Frames without a face pass through, as the very array that was given. Raises at once or when asked for a frame:
        UsageError, MediaError, EngineError; Cancelled by `cancel`; EngineClosed by `close`; FaceNotFound at the end
        when no frame had a face.
        """
        options = SamplingOptions(
            steps=steps, guidance=guidance, cache_interval=cache_interval, seed=seed, sampler=sampler
        )
        self._runs.check(cancel)
        self._check_settings(options)
        if length is not None and (isinstance(length, bool) or not isinstance(length, int) or length < 1):
            raise UsageError(f"length is {length}; give a whole number of frames from 1 on")
        pipeline = self._pipeline(samples, length, options, detector, noise)
        chain = self._runs.start(pipeline.stages(indexed(frames, pipeline.maker.source_length)), StageTimes())
        return FrameStream(chain, cancel)

    async def arun(self, *arguments: Any, cancel: CancelToken | None = None, **options: Any) -> RunReport:
        """Call `run` on a thread of its own. Cancelling the task stops the work and removes the partial file first.

        Parameters and errors as in `run`; `progress` is called from that thread.
        """
        return await outcome_of(lambda token: self.run(*arguments, cancel=token, **options), cancel)

    def astream(self, *arguments: Any, **options: Any) -> AsyncGenerator[Frame, None]:
        """Yield the frames of `stream`, waited for on a thread of its own.

        Cancelling the task, or closing this, stops the work. Parameters and errors as in `stream`.
        """
        return frames_of(lambda: self.stream(*arguments, **options))

    def _pipeline(
        self,
        samples: Any,
        length: int | None,
        options: SamplingOptions,
        detector: Detector | None,
        noise: NoiseSource | None,
    ) -> FramePipeline:
        model = self.bundle.model
        tokens = AudioTokens(self._engines["audio_encoder"], samples, model)
        return FramePipeline(
            maker=CallMaker(
                model=model,
                detector=detector or self.detector(),
                detector_threads=1 if detector else _detector_threads(),
                length=length or tokens.frames,
            ),
            denoiser=ChunkRunner(
                self._executors.lender(options),
                model,
                noise or seeded_noise(options.seed),
                options.guidance,
                lambda: self._fallback.lender(options),
            ),
            tokens=tokens,
        )


def _detector_threads() -> int:
    """A quarter of the cores, at most 4: detection goes beside every other stage."""
    return min(max((os.cpu_count() or 1) // 4, 1), 4)
