"""A whole bench: sections in turn, one report."""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lsx
from lsx.bench.avatar import avatar_rows
from lsx.bench.baselines import (
    COMPILED,
    DEEPCACHE,
    forget_torch_memory,
    reference_of,
    set_torch_threads,
    torch_chunks,
)
from lsx.bench.contenders import chosen_backends, chosen_bundles, label_of
from lsx.bench.host import align_and_paste_seconds, detect_seconds, follow_seconds, transcode_seconds
from lsx.bench.judged_clip import judged_clip, stable_sync_judge
from lsx.bench.options import BenchOptions
from lsx.bench.peaks import device_peaks, host_peaks
from lsx.bench.profile import profile_graphs
from lsx.bench.report import SCHEMA_VERSION, BenchReport, Row, Share, Stages, Sweep
from lsx.bench.runs import ChildRuns
from lsx.bench.stages import chunk_stages
from lsx.bench.sweep import SweepInputs, sweep
from lsx.bench.timing import Budget, Work, busy_note, few_note, measure, noise_note, rows_of
from lsx.bench.workloads import (
    EAGER,
    chunk_work,
    clip_chunk,
    graph_axes,
    graph_works,
    seeded_chunk,
)
from lsx.bundle.bundle import Bundle
from lsx.bundle.manifest import MANIFEST
from lsx.bundle.sampling import sampling_of
from lsx.core.atomic_files import sha256_of
from lsx.core.graph_names import LOOP_GRAPHS, MODEL_GRAPHS
from lsx.core.sampling import SamplingOptions
from lsx.denoising.executor_cache import executor_cache_for
from lsx.engines.device_engine import DeviceEngine
from lsx.engines.engine import Engine
from lsx.engines.loading import opened_engines
from lsx.engines.registry import EngineOptions
from lsx.media.video_reader import VideoReader
from lsx.reporting.system_info import system_info
from lsx.runtime.run_files import open_inputs

__all__ = ["bench"]

_FOLLOWED = 5  # frames of which one is looked at, where faces are followed


def bench(
    bundle: Bundle,
    *,
    checkpoint_dir: Path | None = None,
    options: SamplingOptions | None = None,
    settings: BenchOptions | None = None,
    progress: Callable[[str], None] = lambda _: None,
    save: Callable[[BenchReport], None] = lambda _: None,
) -> BenchReport:
    """Measure `bundle` on this machine against what its user has today.

    checkpoint_dir : of the PyTorch baselines, default where the export found it; without one there are no
    baselines, and a note says so. save : called with what there is after each section, so that a later failure
    loses nothing.

    Raises UsageError, BundleError, IntegrityError, CheckpointError, BackendUnavailable, EngineError, MediaError.
    """
    options, settings = sampling_of(bundle, options, {}, "options"), settings or BenchOptions()
    measurement = _Bench(bundle, checkpoint_dir, options, settings, progress, save)
    return measurement.run()


class _Bench:
    """One bench under way."""

    def __init__(
        self,
        bundle: Bundle,
        checkpoint_dir: Path | None,
        options: SamplingOptions,
        settings: BenchOptions,
        progress: Callable[[str], None],
        save: Callable[[BenchReport], None],
    ) -> None:
        self._options, self._settings, self._say, self._save = options, settings, progress, save
        self._bundles = chosen_bundles(bundle, settings)
        self._bundle = self._bundles[0]
        self._notes: list[str] = []
        busy = busy_note()
        if busy is not None:
            self._notes.append(busy)
        self._backends = chosen_backends(self._bundles, settings)
        if settings.clip is not None:  # refused before anything is measured
            open_inputs(*settings.clip, Path("result.mp4"))
        self._judge = stable_sync_judge(settings.auxiliary)
        for one in self._bundles:
            one.verify()
        set_torch_threads(settings.threads)
        self._checkpoint = reference_of(bundle, checkpoint_dir, self._notes.append) if self._needs_torch() else None
        self._checkpoint_dir = checkpoint_dir
        self._rows: list[Row] = []
        self._stages: list[Stages] = []
        self._sections: dict[str, Any] = {}

    def _needs_torch(self) -> bool:
        return "graphs" in self._settings.sections or "chunk" in self._settings.sections

    def run(self) -> BenchReport:
        """All sections that were asked for; what is measured is handed to `save` after each."""
        sections, settings = self._settings.sections, self._settings
        runs = ChildRuns(self._bundle, self._checkpoint_dir, self._options, settings, self._backends[0], self._say)
        if "graphs" in sections:
            self._graphs()
            self._save(self._report())
        if "chunk" in sections:
            self._chunk()
            self._sections["host"] = self._host()
            self._save(self._report())
        if settings.profile:
            axes = {"b": self._options.guidance_batch, "F": self._bundle.model.host_vae_frames, "n": 1}
            self._sections["profile"] = profile_graphs(
                self._bundle, settings.graphs, axes, threads=settings.threads, say=self._say
            )
            self._save(self._report())
        if "cold" in sections:
            self._sections["cold"] = tuple(runs.cold(name) for name in self._backends)
        if settings.clip is not None:
            self._sections["clip"], stages = runs.clip(*settings.clip)
            self._stages.append(stages)
            self._save(self._report())
            self._avatar(settings.clip)
            self._several(runs, settings.clip)
        if settings.sweep:
            self._sections["sweep"] = self._sweep()
            self._save(self._report())
        if settings.duration is not None:
            self._sections["long_run"], note = runs.long(settings.duration)
            self._notes += [] if note is None else [note]
        self._notes += [note for note in (few_note(self._rows), noise_note(self._rows)) if note is not None]
        return self._report()

    def _avatar(self, clip: tuple[Path, Path]) -> None:
        """The clip's avatar beside the clip, where that is asked for."""
        if self._settings.avatar:
            engine, repeat = self._engine_options(), self._settings.repeat
            self._rows += avatar_rows(self._bundle, self._backends[0], self._options, engine, clip, repeat, self._say)
            self._save(self._report())

    def _several(self, runs: ChildRuns, clip: tuple[Path, Path]) -> None:
        """The clip for several clients at once, and live, where that is asked for."""
        if self._settings.clients is not None:
            self._sections["clients"] = runs.clients(*clip, self._settings.clients)
            self._save(self._report())
        if self._settings.live:
            self._sections["live"] = runs.live(*clip)
            self._save(self._report())

    def _sweep(self) -> Sweep:
        inputs = SweepInputs(*seeded_chunk(self._bundle.model), "seeded noise for faces and sound")
        if self._settings.clip is not None:
            video, audio = self._settings.clip
            truth, judge = self._settings.truth, self._judge
            judged = None
            if truth is not None or judge is not None:
                judged = judged_clip(self._bundle, video, audio, truth=truth, judge=judge)
            first = clip_chunk(self._bundle, video, audio)
            inputs = SweepInputs(*first, f"the first chunk of {video.name}", judged)
        return sweep(
            self._bundles,
            self._backends[0],
            self._options.guidance,
            self._engine_options(),
            inputs=inputs,
            progress=self._say,
        )

    def _report(self) -> BenchReport:
        manifest = self._bundle.manifest
        return BenchReport(
            schema_version=SCHEMA_VERSION,
            lsx_version=lsx.__version__,
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            machine=dict(system_info(self._bundle.path)),
            bundle={
                "model": manifest.model.version,
                "resolution": str(manifest.model.resolution),
                "precision": ", ".join(map(label_of, self._bundles)),
                "manifest_sha256": sha256_of(self._bundle.path / MANIFEST),
            },
            options={k: str(v) for k, v in (asdict(self._options) | asdict(self._settings)).items()},
            rows=tuple(self._rows),
            stages=tuple(self._stages),
            notes=tuple(self._notes),
            **self._sections,
        )

    def _options_of(self, bundle: Bundle) -> SamplingOptions:
        """A teacher and its students beside each other run each as it was made to."""
        return self._options if bundle.manifest.student == self._bundle.manifest.student else bundle.sampling

    def _engine_options(self, options: SamplingOptions | None = None) -> EngineOptions:
        return EngineOptions(
            provider=self._settings.provider,
            threads=self._settings.threads,
            trust_code=self._settings.trust_code,
            guidance_batch=(options or self._options).guidance_batch,
        )

    def _contenders(self) -> Iterator[tuple[str, Bundle, str]]:
        """(name, bundle, backend) of everything of lsx's; precision and student are named where there are several."""
        for bundle in self._bundles:
            for backend in self._backends:
                name = backend if len(self._bundles) == 1 else f"{backend}, {label_of(bundle)}"
                yield name, bundle, backend

    def _graphs(self) -> None:
        """Each graph, and the roofline."""
        with ExitStack() as stack:
            self._say("loading engines")
            loaded: dict[str, dict[str, Engine]] = {}
            for name, bundle, backend in self._contenders():
                loaded[name] = stack.enter_context(
                    opened_engines(bundle, backend, self._settings.graphs, self._engine_options())
                )
            bundles = {name: bundle for name, bundle, _ in self._contenders()}
            if self._checkpoint is not None:
                loaded[EAGER] = stack.enter_context(
                    opened_engines(
                        self._bundle, "torch", self._settings.graphs, EngineOptions(checkpoint_dir=self._checkpoint_dir)
                    )
                )
            baseline = EAGER if self._checkpoint is not None else None
            budget = Budget(repeat=self._settings.repeat, seconds=6, least=5)
            axes: dict[str, dict[str, int]] = {}
            for graph in self._settings.graphs:
                self._say(f"graph {graph}")
                axes[graph] = graph_axes([e[graph] for e in loaded.values()], self._bundle.model, self._options)
                works: dict[str, Work] = {}
                for name, engines in loaded.items():
                    works |= graph_works(name, engines[graph], axes[graph])
                self._rows += rows_of("graphs", graph, measure(works, budget), baseline)
            moved = _bytes_moved(loaded)
            every = {name: next(iter(engines.values())) for name, engines in loaded.items()}
            device = next((e for e in every.values() if isinstance(e, DeviceEngine)), None)
            if device is not None:  # the peaks are the device's
                bundles = {n: b for n, b in bundles.items() if isinstance(every[n], DeviceEngine)}
            self._say("peaks of the machine")
            peaks = host_peaks() if device is None else device_peaks(device.device)
        forget_torch_memory()
        try:
            from lsx.bench.roofline import roofline
        except ImportError as error:
            self._notes.append(f"no roofline: counting FLOPs needs {error.name}, of the export extra")
            return
        self._sections["roofline"] = roofline(self._rows, peaks, axes, bundles, moved)

    def _chunk(self) -> None:
        """The whole 16-frame chunk on everything."""
        options = self._options
        cache = "no DeepCache" if options.cache_interval is None else f"cache interval {options.cache_interval}"
        name = f"{options.steps} steps, {options.sampler}, guidance {options.guidance:g}, {cache}"
        works: dict[str, Work] = {}
        with ExitStack() as stack:
            self._say("loading engines for the chunk")
            loaded = {}
            for contender, bundle, backend in self._contenders():
                own = self._options_of(bundle)
                engines = stack.enter_context(opened_engines(bundle, backend, MODEL_GRAPHS, self._engine_options(own)))
                loaded[contender] = engines
                on_device = all(isinstance(engine, DeviceEngine) for engine in engines.values())
                loop = {graph: engines[graph] for graph in LOOP_GRAPHS}
                executors = executor_cache_for(loop, bundle.model)
                stack.callback(executors.close)
                works[contender] = chunk_work(executors, bundle.model, own)
                if on_device:
                    plain = executor_cache_for(loop, bundle.model, cuda_graph=False, beside=executors)
                    stack.callback(plain.close)
                    works[f"{contender}, no CUDA graph"] = chunk_work(plain, bundle.model, own)
                if on_device and own.cache_interval is not None:
                    whole = SamplingOptions(**asdict(own) | {"cache_interval": None})
                    works[f"{contender}, no DeepCache"] = chunk_work(executors, bundle.model, whole)
            baseline = None
            if self._checkpoint is not None:
                self._say("loading PyTorch")
                compiled = _on_gpu() if self._settings.compiled is None else self._settings.compiled
                torch = torch_chunks(self._checkpoint, options, compiled=compiled, note=self._notes.append)
                works |= torch
                baseline = next((n for n in (DEEPCACHE, COMPILED, EAGER) if n in torch), None)
            self._say(f"16-frame chunk on {len(works)} contenders")
            # The first run of each is the warm-up. On a CPU a round takes a minute: one has to do, and a note says so.
            samples = measure(works, Budget(repeat=self._settings.repeat, seconds=60, least=1, most=20))
            self._rows += rows_of("chunk", name, samples, baseline)
            for contender, bundle, _ in self._contenders():
                self._say(f"stages of the chunk on {contender}")
                median, own = statistics.median(samples[contender][1:]), self._options_of(bundle)
                self._stages.append(chunk_stages(loaded[contender], bundle.model, own, contender, median))
        forget_torch_memory()

    def _host(self) -> tuple[Share, ...]:
        """The host's stages, one core."""
        self._say("align and paste")
        seconds = align_and_paste_seconds(self._bundle.model.resolution, 200)
        shares = [Share(name="align and paste, brows 200 px apart", seconds=seconds, count=1)]
        if self._settings.clip is not None:
            shares += self._host_over_clip(self._settings.clip[0])
        return tuple(shares)

    def _host_over_clip(self, video: Path) -> Iterator[Share]:
        self._say("detection, decoding and encoding")
        first = next(VideoReader(video).frames(0, 1))
        yield Share(name="detect, first frame of the clip", seconds=detect_seconds(self._bundle, first), count=1)
        for every, name in ((1, "every frame"), (_FOLLOWED, f"every {_FOLLOWED}th, followed between")):
            seconds = follow_seconds(self._bundle, first, every)
            yield Share(name=f"detect with shots, {name}", seconds=seconds, count=1)
        ours, theirs = transcode_seconds(video)
        yield Share(name="decode and x264 veryfast, all cores", seconds=ours, count=1)
        if theirs is not None:
            yield Share(name="the same by ffmpeg alone", seconds=theirs, count=1)


def _bytes_moved(loaded: dict[str, dict[str, Engine]]) -> dict[tuple[str, str], int]:
    """Bytes that every engine moves whose plan tells it, by contender and graph."""
    return {
        (name, graph): size
        for name, engines in loaded.items()
        for graph, engine in engines.items()
        if (size := engine.bytes_moved()) is not None
    }


def _on_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())
