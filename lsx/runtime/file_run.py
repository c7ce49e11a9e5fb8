"""One run over files: from opened inputs to a whole output, and the report of it."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from lsx.core.cancel import CancelToken
from lsx.core.sampling import SamplingOptions
from lsx.core.threaded_stages import StageTimes
from lsx.faces.detector import detector_threads
from lsx.media.comparison import LAYOUTS
from lsx.media.encoding import EncodeOptions
from lsx.media.joined_video import join_videos
from lsx.media.targets import Output, container_of
from lsx.runtime.avatar_video import AvatarVideo, faces_of
from lsx.runtime.face_aligner import SourceFrames
from lsx.runtime.frame_pipeline import CHUNKS_HELD, FramePipeline, held_frames
from lsx.runtime.live_runs import LiveRuns, ended_by
from lsx.runtime.loaded_bundle import LoadedBundle
from lsx.runtime.run_files import FrameSink, OpenedInputs, sound_notes, speaker_notes, write_frames, writer_like
from lsx.runtime.run_progress import watched
from lsx.runtime.run_report import Progress, ProgressCallback, RunReport
from lsx.runtime.run_sections import Resumption, RunSections, SectionedVideo

__all__ = ["FileRun"]

_FACE_BYTES = 3 * (1 + 4)  # a pixel of an aligned face, and of what is made of it


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FileRun:
    """A run whose inputs are opened and whose options are checked. Parameters as in LipSync.run."""

    loaded: LoadedBundle
    runs: LiveRuns
    inputs: OpenedInputs
    target: Output
    compare: Path | None
    options: SamplingOptions
    encode: EncodeOptions
    require_face: bool
    """Whether it ends at the first frame without a face."""
    progress: ProgressCallback | None
    cancel: CancelToken | None
    resumption: Resumption | None
    """The folder in which it is kept, and from which it goes on."""
    backend: str
    priority: int

    def run(self) -> RunReport:
        """Make the output. Raises what LipSync.run does; nothing is left under the output's name then."""
        reader, footage = self.inputs.video, self.inputs.footage
        with ExitStack() as stack:
            waited = stack.enter_context(self.runs.admitted(self._memory(), self.priority, self.cancel))
            sections = self._sections(stack)
            pipeline = self._pipeline(None if sections is None else sections.look)
            if sections is not None:
                sections.go_on(pipeline, self.inputs.plan.timeline, reader.width)
            started = time.perf_counter()
            times = StageTimes()
            frames = self.runs.start(pipeline.stages(self._source(pipeline)), times)
            stack.enter_context(closing(frames))
            stack.enter_context(ended_by(self.cancel, frames))
            writer = stack.enter_context(self._writer(sections, pipeline))
            layout, comparison = LAYOUTS[footage.compare_layout], None
            if self.compare is not None:
                sound, shown = self.inputs.heard, self.inputs.plan.timeline.shown()
                comparison = writer_like(self.compare, reader, self.encode, sound, layout, shown)
                stack.enter_context(comparison)
            made = watched(frames, pipeline, self.options.steps, self.progress)
            times.busy["mux"] = write_frames(made, writer, comparison, layout)
        times.waits["admission"] = waited
        times.waits["infer"] += pipeline.runner.waited
        times.split("infer", pipeline.runner.seconds)
        return self._report(pipeline, times, time.perf_counter() - started)

    def _memory(self) -> int:
        """Bytes that it takes at most: of the frames and faces that its stages hold, and of its sound."""
        reader, _, plan, sound, footage = self.inputs
        model = self.loaded.bundle.model
        held = held_frames(plan.chunker(model.frames, footage.overlap), detector_threads(footage.detect_every))
        faces = CHUNKS_HELD * model.frames * model.resolution**2 * _FACE_BYTES
        shown = 1 if self.compare is None else 2
        return shown * held * reader.width * reader.height * 3 + faces + sound.samples().nbytes

    def _sections(self, stack: ExitStack) -> RunSections | None:
        if self.resumption is None:
            return None
        facts = (self.backend, self.require_face, container_of(self.target))
        opened = self.resumption.sections(self.inputs, self.loaded.bundle, self.options, self.encode, *facts)
        return stack.enter_context(opened)

    def _source(self, pipeline: FramePipeline) -> SourceFrames:
        """The frames that are still to be read."""
        places = self.inputs.plan.timeline.source(pipeline.chunker.source_length)
        return self.inputs.video.at(places[pipeline.border.read :])

    def _writer(self, sections: RunSections | None, pipeline: FramePipeline) -> AbstractContextManager[FrameSink]:
        reader, sound, encode = self.inputs.video, self.inputs.heard, self.encode
        timeline, shown = self.inputs.plan.timeline, self.inputs.plan.timeline.shown()
        if sections is None or not sections.borders:
            return writer_like(self.target, reader, encode, sound, None, shown)
        return SectionedVideo(
            sections,
            pipeline,
            timeline,
            lambda path, clock: writer_like(path, reader, encode, None, None, clock),
            lambda parts: join_videos(parts, self.target, shown, encode.audio_codec, sound),
        )

    def _pipeline(self, kept: Path | None) -> FramePipeline:
        """Choose the faces; where `speaker` asks for it all frames are looked at first, or `kept` has that."""
        reader, _, plan, _, footage = self.inputs
        detector, bundle = self.loaded.detector(), self.loaded.bundle
        faces = faces_of(reader, footage, plan.timeline, detector, bundle, self._looked, kept)
        aligner = plan.aligner(faces, threads=detector_threads(footage.detect_every), require_face=self.require_face)
        avatar = reader.avatar if isinstance(reader, AvatarVideo) else None
        pipeline = self.loaded.pipeline(
            plan, self.options, aligner, footage=footage, avatar=avatar, priority=self.priority
        )
        pipeline.frames_owned = self.compare is None
        return pipeline

    def _looked(self, done: int, frames: int) -> None:
        self.runs.check(self.cancel)
        if self.progress is not None:
            self.progress(
                Progress(frames=0, total=self.inputs.plan.timeline.frames, fps=0.0, looked=done, to_look=frames)
            )

    def _report(self, pipeline: FramePipeline, times: StageTimes, seconds: float) -> RunReport:
        timeline, choices = self.inputs.plan.timeline, pipeline.aligner.faces.choices
        return RunReport(
            output=self.target if isinstance(self.target, Path) else None,
            frames=pipeline.chunker.length,
            seconds=seconds,
            faceless=tuple(pipeline.aligner.faceless),
            stages=dict(times.busy),
            waits=dict(times.waits),
            bottleneck=times.bottleneck or "",
            notes=(*sound_notes(self.inputs.heard.samples()), *speaker_notes(choices, self.inputs.video.clock)),
            choices=choices,
            source_frames=timeline.used,
            fps=float(timeline.shown().rate),
            speed=timeline.speed,
            chunks=pipeline.chunker.count,
            silent_chunks=pipeline.chunker.silent,
            saved_chunks=max(pipeline.chunker.whole - pipeline.start.computed - pipeline.runner.submitted, 0),
            seam=pipeline.seams.ratio,
            blended=pipeline.blended,
            repeated_chunks=pipeline.start.repeated + pipeline.runner.repeated,
            resumed_frames=pipeline.border.frame,
        )
