"""What a bench found: values, report.json, and the comparison of two of them. The schema is told in docs/bench.md."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from lsx.bench.client_row import ClientRow
from lsx.bench.live_timing import LiveTiming
from lsx.bundle.manifest import Entry
from lsx.errors import UsageError

__all__ = [
    "REPORT",
    "SCHEMA_VERSION",
    "BenchReport",
    "Change",
    "ClipTiming",
    "ColdStart",
    "LongRun",
    "ProfileRow",
    "RoofRow",
    "Roofline",
    "Row",
    "Share",
    "Spread",
    "Stages",
    "Sweep",
    "SweepPoint",
    "changes",
    "different_options",
    "read_report",
]

SCHEMA_VERSION = 3
"""1 called a chunk a call, in `section`, in the names of figures and in the clip's quantiles; until 3 a
contender was a system."""
REPORT = "report.json"


class Spread(Entry):
    """Median and quartiles of what was measured `repeats` times; `first` is the very first run, apart."""

    median: float
    low: float
    high: float
    first: float | None = None
    repeats: int


class Row(Entry):
    """One thing measured on one contender, in turn with the others of the same section and name."""

    section: str
    """`graphs`, `chunk` or `avatar`."""
    what: str
    """The graph, the chunk with its steps, or the run."""
    contender: str
    """A backend of lsx, or a PyTorch baseline; of `avatar` the `video` itself, or the `avatar`."""
    seconds: Spread
    ratio: Spread | None = None
    """The baseline's seconds over this contender's, pair by pair."""
    versus: str | None = None
    """The baseline."""


class RoofRow(Entry):
    """One graph on one contender against what the machine could do."""

    graph: str
    contender: str
    flops: float
    bytes: float
    bytes_of: Literal["plan", "graph"] = "graph"
    """What they are counted of: every layer of the built plan, or the graph's weights, inputs and outputs."""
    seconds: float
    flops_share: float | None
    """Share of the measured matrix product peak."""
    bytes_share: float
    """Share of the measured copy peak; both are of what is counted: caches and repeated reads are not in it."""
    bound: str | None
    """`compute` or `memory`: which peak the graph would meet first; None where one is not known."""


class Roofline(Entry):
    """Peaks measured in the same run, and the graphs against them."""

    peak_flops: float | None
    """Matrix product, per second; None where nothing here can measure it."""
    peak_bytes: float
    """Copy, read and written, per second."""
    how: str
    rows: tuple[RoofRow, ...]


class Share(Entry):
    """One stage."""

    name: str
    seconds: float
    count: int
    """How often it ran."""
    waited: float = 0.0
    """Seconds that a stage on a thread of its own waited for its neighbours."""


class Stages(Entry):
    """The shares of something's time. Stages on threads of their own overlap: then the sum exceeds the whole."""

    what: str
    contender: str
    seconds: float
    """Wall-clock time of the whole."""
    overlapping: bool
    stages: tuple[Share, ...]
    device_busy: float
    """Share of the whole in which engines ran."""

    @property
    def unet_seconds(self) -> float:
        """What the U-Net took of it, full and shallow evaluations."""
        return sum(share.seconds for share in self.stages if share.name in ("unet", "unet_shallow"))


class ProfileRow(Entry):
    """One operator of a graph in ONNX Runtime's profile, all its nodes together."""

    graph: str
    operator: str
    seconds: float
    """A run."""
    share: float
    """Share of the run's time."""
    count: int
    """Nodes that ran."""


class ClipTiming(Entry):
    """A clip from file to file, in a process of its own."""

    video: str
    audio: str
    frames: int
    seconds: float
    seconds_per_second: float
    """Seconds of compute per second of video: under 1 is faster than real time."""
    first_frame: float
    """Seconds from the start of the run, engines loaded, to the first finished frame."""
    chunk_p50: float
    chunk_p95: float
    chunk_p99: float
    """Seconds from one chunk's last frame to the next one's."""
    peak_host_bytes: int
    peak_device_bytes: int | None
    streams: float
    """Streams at 25 frames a second that one device keeps up with."""
    cost_per_minute: float | None
    """Cost of a minute of video, at --price-per-hour."""


class ColdStart(Entry):
    """A new process until the first frames, step by step, seconds."""

    contender: str
    steps: tuple[Share, ...]
    seconds: float


class LongRun(Entry):
    """Synthetic frames streamed for a while, and memory over time."""

    seconds: float
    frames: int
    at: tuple[float, ...]
    """Seconds at which memory was read, after each chunk."""
    host_bytes: tuple[int, ...]
    device_bytes: tuple[int, ...]
    """Taken on the device; empty without one."""
    growth: float
    """Growth from the first quarter after the warm-up to the last, as a share: host or device, whichever grew more."""
    judged: bool
    """Whether it made chunks enough to judge by."""
    failed: bool


class SweepPoint(Entry):
    """One setting: how long a chunk takes, and how far it is from the 50-step result."""

    precision: str
    sampler: str
    steps: int
    cache_interval: int | None
    seconds: float
    error: float
    """Root mean square difference inside the mask, in levels of 255."""
    pareto: bool
    correlation: float | None = None
    """Correlation of the mouth's opening over a whole clip with the truth; None where it was not given."""
    lag: int | None = None
    """Frames by which the lips come late."""
    mouth_psnr: float | None = None
    """PSNR of the mouth's region against the truth, dB."""
    stable_sync: float | None = None
    """StableSyncNet's mean cosine of lips and sound; None where its weights were not given."""
    stable_sync_offset: int | None = None
    """Frames by which the sound comes early, as StableSyncNet sees it."""

    @property
    def cells(self) -> tuple[str, ...]:
        """Setting, seconds, error, lips, mouth PSNR and StableSyncNet, as the tables of page and terminal show them."""
        return (
            self.precision,
            self.sampler,
            str(self.steps),
            str(self.cache_interval or "off"),
            f"{self.seconds:.3f}",
            f"{self.error:.3f}",
            "" if self.correlation is None else f"{self.correlation:.3f}",
            "" if self.mouth_psnr is None else f"{self.mouth_psnr:.1f} dB",
            "" if self.stable_sync is None else f"{self.stable_sync:.3f} at {self.stable_sync_offset:+d}",
        )


class Sweep(Entry):
    """All settings, and what to take."""

    reference: str
    points: tuple[SweepPoint, ...]
    recommendation: str


class BenchReport(Entry):
    """report.json."""

    schema_version: int
    lsx_version: str
    created: str
    command: str = ""
    """The command line, as it was given."""
    machine: dict[str, str]
    """Versions, GPU, driver, cores, memory, as `lsx doctor` tells them."""
    bundle: dict[str, str]
    """Model, resolution, precision, SHA-256 of the manifest."""
    options: dict[str, str]
    rows: tuple[Row, ...] = ()
    roofline: Roofline | None = None
    stages: tuple[Stages, ...] = ()
    host: tuple[Share, ...] = ()
    """Stages of the host on one core, seconds a frame at 1080p."""
    profile: tuple[ProfileRow, ...] = ()
    clip: ClipTiming | None = None
    clients: tuple[ClientRow, ...] = ()
    live: LiveTiming | None = None
    cold: tuple[ColdStart, ...] = ()
    long_run: LongRun | None = None
    sweep: Sweep | None = None
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """The file's content."""
        return self.model_dump_json(indent=1) + "\n"

    def unet_lines(self) -> Iterator[str]:
        """How many times faster the U-Net of each chunk beside the first is: what a student saves of it."""
        chunks = [stages for stages in self.stages if stages.unet_seconds and not stages.overlapping]
        for other in chunks[1:]:
            named = (f"{s.contender} {1e3 * s.unet_seconds:.0f} ms" for s in (chunks[0], other))
            times = chunks[0].unet_seconds / other.unet_seconds
            yield f"the U-Net's part of a chunk: {', '.join(named)}, {times:.2f}x"

    def figures(self) -> Iterator[tuple[str, float]]:
        """Seconds by name, lower being better: what two reports are compared by. PyTorch's own are not among them."""
        for row in self.rows:
            if not row.contender.startswith("PyTorch"):
                yield f"{row.section}: {row.what} on {row.contender}", row.seconds.median
        if self.clip is not None:
            yield "clip: seconds per second", self.clip.seconds_per_second
            yield "clip: chunk p95", self.clip.chunk_p95
        for together in self.clients:
            yield f"clients: {together.clients} at once", together.seconds
        if self.live is not None:
            yield "live: sound to first picture", self.live.latency_p50
        for cold in self.cold:
            yield f"cold start on {cold.contender}", cold.seconds


_SAME = ("steps", "guidance", "cache_interval", "sampler", "provider", "threads", "clip")


def different_options(before: BenchReport, after: BenchReport) -> list[str]:
    """Options that decide what a figure is of, where the two have others: `steps 20, now 4` and the like."""
    return [
        f"{name} {before.options.get(name)}, now {after.options.get(name)}"
        for name in _SAME
        if before.options.get(name) != after.options.get(name)
    ]


class Change(Entry):
    """One figure in two reports."""

    name: str
    before: float
    after: float

    @property
    def change(self) -> float:
        """The change as a share: 0.2 is 20 % slower."""
        return self.after / self.before - 1


def read_report(path: Path) -> BenchReport:
    """A report.json, or the folder that holds one. Raises UsageError for anything else."""
    file = path / REPORT if path.is_dir() else path
    try:
        return BenchReport.model_validate(_current(json.loads(file.read_text(encoding="utf-8"))))
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}. Give a report.json of lsx bench") from error
    except (ValueError, ValidationError) as error:
        first = str(error).splitlines()[0]
        raise UsageError(f"{file}: not a report of this lsx bench ({first}). Measure again with -o") from error


def _current(content: Any) -> Any:
    """The content of a report of schema 1 or 2 as this lsx would have written it."""
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version not in (1, 2):
        return content
    if version == 1:
        _rename_calls(content)
    roofline = content.get("roofline") or {}
    for rows in (*(content.get(name, ()) for name in ("rows", "stages", "cold")), roofline.get("rows", ())):
        for row in rows:
            row["contender"] = row.pop("system", None)
    return content | {"schema_version": SCHEMA_VERSION}


def _rename_calls(content: dict[str, Any]) -> None:
    """What schema 1 called a call is a chunk."""
    for row in content.get("rows", ()):
        row["section"] = "chunk" if row["section"] == "call" else row["section"]
    clip = content.get("clip")
    if clip is not None:
        content["clip"] = {name.replace("call_p", "chunk_p"): value for name, value in clip.items()}


def changes(before: BenchReport, after: BenchReport) -> list[Change]:
    """The figures that both have."""
    old = dict(before.figures())
    return [Change(name=name, before=old[name], after=value) for name, value in after.figures() if old.get(name)]
