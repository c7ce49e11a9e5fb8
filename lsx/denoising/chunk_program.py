"""The loop as a program: one chunk of the U-Net, VAE encode, every denoising step, VAE decode.

Each value has its own buffer, written once; the memory plan (`memory_plan.py`) lets those whose lifetimes do not meet
share addresses, from which the ping-pong of the latents and the cached features of DeepCache come by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lsx.core.model_spec import ModelSpec
from lsx.core.sampling import SamplingOptions
from lsx.core.tensors import Dtype, TensorSpec
from lsx.denoising.program import Buffer, BufferRole, Copy, GraphIO, Operation, Program, RunGraph, View
from lsx.denoising.schedule import IDENTITY, Step, schedule
from lsx.errors import EngineError

__all__ = ["PLAIN", "ProgramInputs", "chunk_program", "keeps_latents", "loop_program"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramInputs:
    """What a chunk's caller gives beside faces, first latents, tokens and guidance."""

    conditioning: bool = False
    """What the VAE encoder would make, float32 [1, 9, F, h, w], instead of the noise that it takes."""
    kept: bool = False
    """What this chunk's latents take of the one before at every step: `kept` float32 [steps + 1, 5, F, h, w], those
    latents and their share. The program then gives its own, as `steps_out` [steps + 1, 4, F, h, w]."""


PLAIN = ProgramInputs()
"""Nothing beside those."""


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


def _denoise(
    b: _Builder, options: SamplingOptions, latents: View, conditioning: View, out: View, *, kept: bool = False
) -> None:
    """Every step of the schedule, from the noise in `latents` to `out`. kept : as of `ProgramInputs`."""
    steps = schedule(options)
    loop = _Loop(b, len(steps), conditioning, out)
    if kept:
        loop.keep()
    noise = b.constant("noise_pred.zero", b.input_of("step", "noise_pred"), 0.0)
    previous = b.constant("previous.zero", b.input_of("step", "previous"), 0.0)
    state = loop.advance(0, {"noise_pred": noise, "latents": latents, "previous": previous}, IDENTITY)
    for index, step in enumerate(steps, 1):
        noise = loop.forward(index, step, state["sample"])
        before = {"noise_pred": noise, "latents": state["latents_out"], "previous": state["previous_out"]}
        state = loop.advance(index, before, step.coefficients)


class _Loop:
    """A schedule's operations, appended one by one."""

    def __init__(self, b: _Builder, steps: int, conditioning: View, out: View) -> None:
        self._b, self._steps, self._out = b, steps, out
        self._audio = b.like("encoder_hidden_states", b.input_of("unet", "encoder_hidden_states"), "input")
        self._always = {
            "conditioning": conditioning,
            "guidance": b.like("guidance", b.input_of("step", "guidance"), "input"),
        }
        self._deep: View | None = None
        self._kept: View | None = None
        self._own: View | None = None

    def keep(self) -> None:
        """Take the latents of the chunk before, and give this one's."""
        b = self._b
        if not keeps_latents(b.graphs):
            raise EngineError("the bundle's `step` takes no latents to keep: export it again")
        every = {
            name: (self._steps + 1, *b.input_of("step", name).shape_at(b.axes)[1:]) for name in ("kept", "latents")
        }
        self._kept = b.buffer("kept", "float32", every["kept"], "input")
        self._own = b.buffer("steps_out", "float32", every["latents"], "output")

    def _neighbour(self, index: int) -> dict[str, View]:
        """What `step` number `index` is fed of the chunk before."""
        if not keeps_latents(self._b.graphs):
            return {}
        if self._kept is None:
            return {"kept": self._b.constant("kept.zero", self._b.input_of("step", "kept"), 0.0)}
        return {"kept": _part(self._kept, 0, index, index + 1)}

    def forward(self, index: int, step: Step, sample: View) -> View:
        """The noise that step `index` takes `sample` for; 1 is the first."""
        b = self._b
        timestep = b.constant(f"timestep.{index}", b.input_of("unet", "timestep"), step.timestep)
        feed = {"sample": sample, "timestep": timestep, "encoder_hidden_states": self._audio}
        names: dict[str, View | str] = {"noise_pred": f"noise_pred.{index}"}
        if step.graph == "unet":
            outputs = b.run("unet", feed, names | {"deep_features": f"deep.{index}"})
            self._deep = outputs["deep_features"]
        elif self._deep is None:
            raise EngineError("a schedule starts with a full step")
        else:
            outputs = b.run("unet_shallow", feed | {"deep_features": self._deep}, names)
        return outputs["noise_pred"]

    def advance(self, index: int, before: Mapping[str, View], coefficients: NDArray[np.float32]) -> dict[str, View]:
        """`step` after the forward `index`; 0 makes the first one's input."""
        b, last = self._b, index == self._steps
        given = b.constant(f"coefficients.{index}", b.input_of("step", "coefficients"), coefficients)
        names: dict[str, View | str] = {
            "latents_out": self._out if last else f"latents.{index}",
            "previous_out": f"previous.{index}",
            "sample": f"sample.{index}",
        }
        if self._own is not None:
            names["latents_out"] = _part(self._own, 0, index, index + 1)
        state = b.run("step", {**before, **self._always, **self._neighbour(index), "coefficients": given}, names)
        if self._own is not None and last:
            b.copy(state["latents_out"], self._out)
        return state
