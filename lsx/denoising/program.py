"""The loop as a program: buffers and operations as plain data, built once, run by an executor.

A program covers one chunk of the U-Net: VAE encode, every denoising step, VAE decode. Each value has its own buffer,
written once; the memory plan (`memory_plan.py`) lets those whose lifetimes do not meet share addresses, from which the
ping-pong of the latents and the cached features of DeepCache come by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lsx.core.model_spec import ModelSpec
from lsx.core.sampling import SamplingOptions
from lsx.core.tensors import Dtype, TensorSpec
from lsx.denoising.schedule import IDENTITY, schedule
from lsx.errors import EngineError

__all__ = [
    "PLAIN",
    "Buffer",
    "Copy",
    "GraphIO",
    "Operation",
    "Program",
    "ProgramInputs",
    "RunGraph",
    "View",
    "chunk_program",
    "keeps_latents",
    "loop_program",
    "reads_and_writes",
]


_SIZES: dict[Dtype, int] = {"float32": 4, "float16": 2, "bfloat16": 2, "uint8": 1, "int64": 8}

BufferRole = Literal["input", "output", "constant", "scratch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffer:
    """A tensor in memory, C-contiguous."""

    name: str
    dtype: Dtype
    shape: tuple[int, ...]
    owner: BufferRole
    """Who fills it, and how long it lives: `input` by the caller before a run, `output` read by the caller after it,
    `constant` filled once for all runs; `scratch` lives from its first operation to its last."""

    @property
    def size(self) -> int:
        """Bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * _SIZES[self.dtype]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A buffer, or start..stop of one of its axes. Contiguous where that axis is the first."""

    buffer: str
    axis: int = 0
    start: int = 0
    stop: int | None = None

    def shape_in(self, buffer: Buffer) -> tuple[int, ...]:
        """The view's shape."""
        shape = list(buffer.shape)
        shape[self.axis] = (shape[self.axis] if self.stop is None else self.stop) - self.start
        return tuple(shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunGraph:
    """Run a graph on these tensors."""

    graph: str
    feed: Mapping[str, View]
    results: Mapping[str, View]
    phase: str
    """What the time is booked under: VAE encode, denoise or VAE decode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """Copy one view to another of the same shape and dtype, on the device."""

    source: View
    target: View
    phase: str


Operation = RunGraph | Copy


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramInputs:
    """What a chunk's caller gives beside faces, first latents, tokens and guidance."""

    conditioning: bool = False
    """What the VAE encoder would make, float32 [1, 9, F, h, w], instead of the noise that it takes."""
    kept: bool = False
    """The latents of the chunk before at every step, that this one's go on from, and their share in each frame:
    `kept` float32 [steps + 1, 4, F, h, w] and `share` float32 [F]. The program then gives its own, as `steps_out`."""


PLAIN = ProgramInputs()
"""Nothing beside those."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphIO:
    """Inputs and outputs of a graph, as its engine takes them."""

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Program:
    """Buffers by name, operations in order, and the contents of the constants."""

    buffers: Mapping[str, Buffer]
    operations: tuple[Operation, ...]
    constants: Mapping[str, NDArray[np.float32]]

    def owned(self, owner: BufferRole) -> Iterator[Buffer]:
        """The buffers of one owner."""
        return (buffer for buffer in self.buffers.values() if buffer.owner == owner)

    def graphs(self) -> tuple[str, ...]:
        """The graphs that it runs, each once, in the order of their first use."""
        return tuple(dict.fromkeys(o.graph for o in self.operations if isinstance(o, RunGraph)))


def reads_and_writes(operation: Operation) -> tuple[list[View], list[View]]:
    """The views that an operation reads, and those that it writes."""
    if isinstance(operation, Copy):
        return [operation.source], [operation.target]
    return list(operation.feed.values()), list(operation.results.values())


@dataclass(slots=True)
class _Builder:
    """Appends operations, making a buffer for every new value and checking it against the graphs' tensors."""

    graphs: Mapping[str, GraphIO]
    axes: Mapping[str, int]
    buffers: dict[str, Buffer] = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)
    constants: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    phase: str = ""

    def buffer(self, name: str, dtype: Dtype, shape: Sequence[int], owner: BufferRole) -> View:
        self.buffers[name] = Buffer(name=name, dtype=dtype, shape=tuple(shape), owner=owner)
        return View(buffer=name)

    def like(self, name: str, spec: TensorSpec, owner: BufferRole) -> View:
        """A buffer for the tensor `spec`, its varying axes at this program's lengths."""
        return self.buffer(name, spec.dtype, spec.shape_at(self.axes), owner)

    def constant(self, name: str, spec: TensorSpec, value: NDArray[np.float32] | float) -> View:
        view = self.like(name, spec, "constant")
        self.constants[name] = np.broadcast_to(np.asarray(value, np.float32), self.buffers[name].shape)
        return view

    def input_of(self, graph: str, tensor: str) -> TensorSpec:
        return self.graphs[graph].inputs[tensor]

    def run(self, graph: str, feed: Mapping[str, View], names: Mapping[str, View | str]) -> dict[str, View]:
        """Add a run of `graph`; an output whose name maps to a string gets a scratch buffer called so."""
        io = self.graphs[graph]
        results = {}
        for tensor, spec in io.outputs.items():
            target = names.get(tensor, f"unused.{graph}.{tensor}.{len(self.operations)}")
            results[tensor] = target if isinstance(target, View) else self.like(target, spec, "scratch")
        for tensor, view in feed.items():
            self._check(graph, io.inputs[tensor], view)
        for tensor, view in results.items():
            self._check(graph, io.outputs[tensor], view)
        self.operations.append(RunGraph(graph=graph, feed=dict(feed), results=results, phase=self.phase))
        return results

    def copy(self, source: View, target: View) -> None:
        self.operations.append(Copy(source=source, target=target, phase=self.phase))

    def _check(self, graph: str, spec: TensorSpec, view: View) -> None:
        buffer = self.buffers[view.buffer]
        shape = view.shape_in(buffer)
        if buffer.dtype != spec.dtype or shape != spec.shape_at(self.axes) or view.axis != 0:
            raise EngineError(
                f"{graph} takes or gives {spec}, but the loop has {buffer.dtype}{list(shape)} there. The bundle's "
                "graphs do not belong together: export it again"
            )

    def program(self) -> Program:
        return Program(buffers=self.buffers, operations=tuple(self.operations), constants=self.constants)


def loop_program(model: ModelSpec, graphs: Mapping[str, GraphIO], options: SamplingOptions) -> Program:
    """The steps alone: `latents`, `conditioning`, `encoder_hidden_states`, `guidance` in, `latents_out` out."""
    b = _Builder(graphs, {"b": options.guidance_batch, "F": model.vae_frames}, phase="denoise")
    latents = b.like("latents", b.input_of("step", "latents"), "input")
    conditioning = b.like("conditioning", b.input_of("step", "conditioning"), "input")
    out = b.like("latents_out", b.input_of("step", "latents"), "output")
    _denoise(b, options, latents, conditioning, out)
    return b.program()


def chunk_program(
    model: ModelSpec,
    graphs: Mapping[str, GraphIO],
    options: SamplingOptions,
    *,
    vae_frames: int | None = None,
    given: ProgramInputs = PLAIN,
) -> Program:
    """A whole chunk. vae_frames : frames that the VAE takes at a time, default the model's for a GPU.

    In: `faces` uint8 [F, H, W, 3], `noise` float32 [2, F, 4, h, w], `latents` float32 [1, 4, F, h, w],
    `encoder_hidden_states` [b, F, S, D], `guidance` float32 [1], and what is `given`.
    Out: `pixels` [F, H, W, 3], `nonfinite` float32 [F], `latents_out` float32 [1, 4, F, h, w].
    Raises EngineError where `kept` is given to graphs of a bundle that cannot take it, see `keeps_latents`.
    """
    size, frames = vae_frames or model.vae_frames, model.frames
    b = _Builder(graphs, {"b": options.guidance_batch, "F": size}, phase="VAE encode")
    faces = b.buffer("faces", "uint8", (frames, model.resolution, model.resolution, 3), "input")
    latents = b.like("latents", b.input_of("step", "latents"), "input")
    spans = [(start, start + size) for start in range(0, frames, size)]
    conditioning = b.like(
        "conditioning", b.input_of("step", "conditioning"), "input" if given.conditioning else "scratch"
    )
    if not given.conditioning:
        _encode(
            b,
            faces,
            b.buffer("noise", "float32", (2, frames, 4, model.latent, model.latent), "input"),
            conditioning,
            spans,
        )
    out = b.like("latents_out", b.input_of("step", "latents"), "output")
    b.phase = "denoise"
    _denoise(b, options, latents, conditioning, out, kept=given.kept)
    b.phase = "VAE decode"
    _decode(b, out, faces, spans)
    return b.program()


def _encode(b: _Builder, faces: View, noise: View, conditioning: View, spans: Sequence[tuple[int, int]]) -> None:
    """The VAE encoder over the frames of each span."""
    for start, stop in spans:
        feed = {"faces": _part(faces, 0, start, stop), "noise": noise}
        targets: dict[str, View | str] = {"conditioning": conditioning}
        if len(spans) > 1:  # the frames are not these tensors' first axis: their parts are not contiguous
            feed["noise"] = b.like(f"noise.{start}", b.input_of("vae_encoder", "noise"), "scratch")
            b.copy(_part(noise, 1, start, stop), feed["noise"])
            targets["conditioning"] = f"conditioning.{start}"
        results = b.run("vae_encoder", feed, targets)
        if len(spans) > 1:
            b.copy(results["conditioning"], _part(conditioning, 2, start, stop))


def _decode(b: _Builder, out: View, faces: View, spans: Sequence[tuple[int, int]]) -> None:
    """The VAE decoder over the frames of each span, to `pixels` and `nonfinite`."""
    decoder, whole = b.graphs["vae_decoder"].outputs, b.buffers[faces.buffer].shape
    pixels = b.buffer("pixels", decoder["pixels"].dtype, whole, "output")
    bad = b.buffer("nonfinite", "float32", whole[:1], "output")
    for start, stop in spans:
        part = out
        if len(spans) > 1:
            part = b.like(f"latents_out.{start}", b.input_of("vae_decoder", "latents"), "scratch")
            b.copy(_part(out, 2, start, stop), part)
        feed = {"latents": part, "faces": _part(faces, 0, start, stop)}
        # Tensors start at multiples of 256 bytes, which the parts of a tiny one do not.
        targets: dict[str, View | str] = {
            "pixels": _part(pixels, 0, start, stop),
            "faces_out": f"faces_out.{start}",
            "nonfinite": bad if len(spans) == 1 else f"nonfinite.{start}",
        }
        results = b.run("vae_decoder", feed, targets)
        if len(spans) > 1:
            b.copy(results["nonfinite"], _part(bad, 0, start, stop))


def _part(view: View, axis: int, start: int, stop: int) -> View:
    return View(buffer=view.buffer, axis=axis, start=start, stop=stop)


def keeps_latents(graphs: Mapping[str, GraphIO]) -> bool:
    """Whether `step` takes latents to keep: bundles that lsx 0.2 wrote have none."""
    return "kept" in graphs["step"].inputs


def _kept(b: _Builder, steps: int, *, given: bool) -> Callable[[int], tuple[dict[str, View], View | None]]:
    """What `step` number i is fed of the chunk before, and where it puts its own latents for the one after."""
    if not keeps_latents(b.graphs):
        if given:
            raise EngineError("the bundle's `step` takes no latents to keep: export it again")
        return lambda _: ({}, None)
    spec, shares = b.input_of("step", "kept"), b.input_of("step", "share")
    if not given:
        nothing = {"kept": b.constant("kept.zero", spec, 0.0), "share": b.constant("share.zero", shares, 0.0)}
        return lambda _: (nothing, None)
    every = (steps + 1, *spec.shape_at(b.axes)[1:])
    kept, own = b.buffer("kept", spec.dtype, every, "input"), b.buffer("steps_out", spec.dtype, every, "output")
    share = b.like("share", shares, "input")
    return lambda i: ({"kept": _part(kept, 0, i, i + 1), "share": share}, _part(own, 0, i, i + 1))


def _denoise(
    b: _Builder, options: SamplingOptions, latents: View, conditioning: View, out: View, *, kept: bool = False
) -> None:
    """Every step of the schedule, from the noise in `latents` to `out`. kept : as of `ProgramInputs`."""
    audio = b.like("encoder_hidden_states", b.input_of("unet", "encoder_hidden_states"), "input")
    guidance = b.like("guidance", b.input_of("step", "guidance"), "input")
    noise = b.constant("noise_pred.zero", b.input_of("step", "noise_pred"), 0.0)
    previous = b.constant("previous.zero", b.input_of("step", "previous"), 0.0)
    steps = schedule(options)
    of_neighbour = _kept(b, len(steps), given=kept)
    deep: View | None = None

    def advance(index: int, coefficients: NDArray[np.float32]) -> dict[str, View]:
        last = index == len(steps)
        neighbour, own = of_neighbour(index)
        feed = {
            "noise_pred": noise,
            "latents": latents,
            "previous": previous,
            "conditioning": conditioning,
            "coefficients": b.constant(f"coefficients.{index}", b.input_of("step", "coefficients"), coefficients),
            "guidance": guidance,
            **neighbour,
        }
        names: dict[str, View | str] = {
            "latents_out": own or (out if last else f"latents.{index}"),
            "previous_out": f"previous.{index}",
            "sample": f"sample.{index}",
        }
        state = b.run("step", feed, names)
        if own is not None and last:
            b.copy(own, out)
        return state

    state = advance(0, IDENTITY)
    for index, step in enumerate(steps, 1):
        latents, previous = state["latents_out"], state["previous_out"]
        timestep = b.constant(f"timestep.{index}", b.input_of("unet", "timestep"), step.timestep)
        feed = {"sample": state["sample"], "timestep": timestep, "encoder_hidden_states": audio}
        if step.graph == "unet":
            outputs = b.run("unet", feed, {"noise_pred": f"noise_pred.{index}", "deep_features": f"deep.{index}"})
            deep = outputs["deep_features"]
        else:
            if deep is None:
                raise EngineError("a schedule starts with a full step")
            outputs = b.run("unet_shallow", feed | {"deep_features": deep}, {"noise_pred": f"noise_pred.{index}"})
        noise = outputs["noise_pred"]
        state = advance(index, step.coefficients)
