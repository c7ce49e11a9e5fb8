"""The loop as a program: what is read was written, live buffers never overlap, and the numbers are a plain loop's."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from lsx.core.graph_names import LOOP_GRAPHS
from lsx.core.model_spec import ModelSpec
from lsx.core.noise import named_noise
from lsx.core.sampling import SamplingOptions
from lsx.core.tensors import Dtype, TensorSpec
from lsx.denoising.chunk_program import chunk_program
from lsx.denoising.chunk_runner import ChunkRunner, audio_batch, repeated_latents, seeded_noise
from lsx.denoising.executor import HostExecutor, Only, io_of
from lsx.denoising.memory_plan import lifetimes, plan_memory
from lsx.denoising.program import Copy, Program, View
from lsx.denoising.schedule import schedule
from lsx.engines.device import ALIGNMENT
from lsx.engines.engine import Array, Engine, FeedDict
from lsx.errors import EngineError, NonFiniteOutput

MODEL = ModelSpec(version="test", resolution=64)
LARGE = ModelSpec(version="test", resolution=576)  # its VAE takes two frames at a time


def _tensor(name: str, shape: tuple[int | str, ...], dtype: Dtype = "float32") -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape)


class ToyEngine(Engine):
    """A graph of the contract's shapes that computes something simple of all its inputs, in NumPy."""

    def __init__(self, graph: str, model: ModelSpec, *, keeps: bool = True) -> None:
        """keeps : whether `step` takes latents to keep, as bundles of lsx 0.2 do not."""
        f, h, r, tokens, width = model.frames, model.latent, model.resolution, model.tokens, model.audio_dim
        sample = _tensor("sample", ("b", 13, f, h, h))
        audio = _tensor("encoder_hidden_states", ("b", f, tokens, width))
        deep, noise = _tensor("deep_features", ("b", f, 2, h, h)), _tensor("noise_pred", ("b", 4, f, h, h))
        latents, part = _tensor("latents", (1, 4, f, h, h)), _tensor("latents", (1, 4, "F", h, h))
        conditioning = _tensor("conditioning", (1, 9, f, h, h))
        faces, pixels = _tensor("faces", ("F", r, r, 3), "uint8"), _tensor("pixels", ("F", r, r, 3))
        time = _tensor("timestep", (1,))
        io = {
            "vae_encoder": (
                [faces, _tensor("noise", (2, "F", 4, h, h))],
                [_tensor("conditioning", (1, 9, "F", h, h))],
            ),
            "unet": ([sample, time, audio], [noise, deep]),
            "unet_shallow": ([sample, time, audio, deep], [noise]),
            "step": (
                [
                    noise,
                    latents,
                    _tensor("previous", (1, 4, f, h, h)),
                    conditioning,
                    _tensor("coefficients", (5,)),
                    _tensor("guidance", (1,)),
                    *([_tensor("kept", (1, 5, f, h, h))] if keeps else []),
                ],
                [_tensor("latents_out", (1, 4, f, h, h)), _tensor("previous_out", (1, 4, f, h, h)), sample],
            ),
            "vae_decoder": (
                [part, faces],
                [_tensor("faces_out", ("F", r, r, 3), "uint8"), pixels, _tensor("nonfinite", ("F",))],
            ),
        }
        super().__init__(graph, *io[graph])

    description = "toy"

    def run(self, feed_dict: FeedDict) -> dict[str, Array]:
        return getattr(self, f"_{self.graph}")(**feed_dict)  # type: ignore[no-any-return]

    def _vae_encoder(self, faces: Array, noise: Array) -> dict[str, Array]:
        levels = faces.mean((1, 2, 3), dtype=np.float32) / 255
        both = np.concatenate(
            [noise[:, :, :4].transpose(0, 2, 1, 3, 4).reshape(8, *noise.shape[1:2], *noise.shape[3:])]
        )
        ones = np.broadcast_to(levels[None, :, None, None], (1, *both.shape[1:]))
        return {"conditioning": np.concatenate([ones, both])[None].astype(np.float32)}

    def _unet(self, sample: Array, timestep: Array, encoder_hidden_states: Array) -> dict[str, Array]:
        audio = encoder_hidden_states.mean((2, 3))[:, None, :, None, None]
        noise = np.tanh(sample[:, :4] + sample[:, 5:9] * 0.3 + sample[:, 9:] * 0.1 + audio) * (timestep / 1000)
        deep = np.stack([sample[:, 0] * 0.5, sample[:, 4]], axis=2)
        return {"noise_pred": noise.astype(np.float32), "deep_features": deep.astype(np.float32)}

    def _unet_shallow(self, deep_features: Array, **feed: Array) -> dict[str, Array]:
        noise = self._unet(**feed)["noise_pred"]
        return {"noise_pred": noise * 0.9 + 0.1 * deep_features[:, :, 0][:, None]}

    def _step(
        self,
        noise_pred: Array,
        latents: Array,
        previous: Array,
        conditioning: Array,
        coefficients: Array,
        guidance: Array,
        kept: Array | None = None,
    ) -> dict[str, Array]:
        c, noise = coefficients, noise_pred[:1] + guidance * (noise_pred[-1:] - noise_pred[:1])
        moved = c[0] * latents + c[1] * noise + c[2] * previous
        if kept is not None:
            moved = moved + kept[:, 4:] * (kept[:, :4] - moved)
        sample = np.concatenate([moved, conditioning], axis=1)
        return {
            "latents_out": moved,
            "previous_out": c[3] * latents + c[4] * noise,
            "sample": np.broadcast_to(sample, (len(noise_pred), *sample.shape[1:])),
        }

    def _vae_decoder(self, latents: Array, faces: Array) -> dict[str, Array]:
        shift = latents.mean((0, 1, 3, 4))[:, None, None, None]
        pixels = (faces + shift).astype(np.float32)
        bad = (~np.isfinite(pixels)).sum((1, 2, 3)).astype(np.float32)
        shown = np.nan_to_num(pixels, nan=0, posinf=255, neginf=0).clip(0, 255).astype(np.uint8)
        return {"faces_out": shown, "pixels": pixels, "nonfinite": bad}

    def close(self) -> None:
        return None


def toy_engines(model: ModelSpec = MODEL, *, keeps: bool = True) -> dict[str, Engine]:
    return {graph: ToyEngine(graph, model, keeps=keeps) for graph in LOOP_GRAPHS}


def toy_inputs(model: ModelSpec, options: SamplingOptions, call: int = 0) -> dict[str, Array]:
    f, h = model.frames, model.latent
    faces = named_noise(f"faces{call}", (f, model.resolution, model.resolution, 3), 0) * 40 + 120
    tokens = named_noise(f"tokens{call}", (f, model.tokens, model.audio_dim), 0)
    return {
        "faces": faces.clip(0, 255).astype(np.uint8),
        "noise": named_noise(f"noise{call}", (2, f, 4, h, h), 0),
        "latents": repeated_latents(named_noise("latents", (1, 4, 1, h, h), 0), f),
        "encoder_hidden_states": audio_batch(tokens, options.guidance_batch),
        "guidance": np.array([options.guidance], np.float32),
    }


def plain_loop(engines: Mapping[str, Any], inputs: Mapping[str, Array], options: SamplingOptions) -> dict[str, Array]:
    """The same call without programs, buffers or memory plans; `kept` in the inputs is heeded."""
    kept = inputs.get("kept")

    def mixed(latents: Array, step: int) -> Array:
        if kept is None:
            return latents
        weight = kept[step, 4]
        blended: Array = (1 - weight) * latents + weight * kept[step, :4]
        return blended

    conditioning = engines["vae_encoder"].run({n: inputs[n] for n in ("faces", "noise")})["conditioning"]
    latents, audio = mixed(inputs["latents"], 0), inputs["encoder_hidden_states"]
    previous, deep, steps = np.zeros_like(latents), None, [latents]
    for number, step in enumerate(schedule(options), 1):
        sample = np.concatenate([latents, conditioning], axis=1)
        sample = np.broadcast_to(sample, (len(audio), *sample.shape[1:]))
        feed = {"sample": sample, "timestep": step.timestep, "encoder_hidden_states": audio}
        if step.graph == "unet":
            made = engines["unet"].run(feed)
            deep = made["deep_features"]
        else:
            made = engines["unet_shallow"].run(feed | {"deep_features": deep})
        noise = made["noise_pred"]
        c, guided = step.coefficients, noise[:1] + options.guidance * (noise[-1:] - noise[:1])
        latents, previous = c[0] * latents + c[1] * guided + c[2] * previous, c[3] * latents + c[4] * guided
        latents = mixed(latents, number)
        steps.append(latents)
    decoded = engines["vae_decoder"].run({"latents": latents, "faces": inputs["faces"]})
    made = {"latents_out": latents, "pixels": decoded["pixels"]}
    return made if kept is None else made | {"steps_out": np.concatenate(steps)}


OPTIONS = [
    SamplingOptions(steps=1, cache_interval=None),
    SamplingOptions(steps=5, cache_interval=3),
    SamplingOptions(steps=20, cache_interval=3),
    SamplingOptions(steps=20, cache_interval=7, guidance=1.0),
    SamplingOptions(steps=12, cache_interval=2, sampler="dpm++2m"),
    SamplingOptions(steps=4, cache_interval=None, sampler="ddim-trailing"),
]


@pytest.mark.parametrize("model", [MODEL, LARGE], ids=["whole", "in parts"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_live_buffers_never_overlap(options: SamplingOptions, model: ModelSpec) -> None:
    program = chunk_program(model, io_of(toy_engines(model)), options)
    plan = plan_memory(program)
    spans = lifetimes(program)
    placed = [
        (plan.offsets[name], plan.offsets[name] + program.buffers[name].size, *spans[name]) for name in plan.offsets
    ]
    assert set(plan.offsets) == set(program.buffers)
    assert all(offset % ALIGNMENT == 0 and end <= plan.size for offset, end, _, _ in placed)
    for a, b in itertools.combinations(placed, 2):
        together_in_time = a[2] <= b[3] and b[2] <= a[3]
        together_in_space = a[0] < b[1] and b[0] < a[1]
        assert not (together_in_time and together_in_space)
    # Memory does not grow with the steps: at most a handful of values are alive at once.
    kept = sum(b.size for owner in ("input", "output", "constant") for b in program.owned(owner))
    largest = max(b.size for b in program.owned("scratch"))
    assert plan.size <= kept + 8 * largest + len(program.buffers) * ALIGNMENT


def test_a_read_of_nothing_is_refused() -> None:
    program = chunk_program(MODEL, io_of(toy_engines()), OPTIONS[0])
    missing = Copy(source=View(buffer="sample.1"), target=View(buffer="sample.0"), phase="x")
    broken = Program(buffers=program.buffers, operations=(missing, *program.operations), constants=program.constants)
    with pytest.raises(EngineError, match=r"reads sample\.1, which nothing wrote"):
        plan_memory(broken)


@pytest.mark.parametrize(
    ("model", "options"), [(LARGE, OPTIONS[1]), *((MODEL, options) for options in OPTIONS)], ids=str
)
def test_the_host_executor_equals_a_plain_loop(options: SamplingOptions, model: ModelSpec) -> None:
    engines = toy_engines(model)
    executor = HostExecutor(chunk_program(model, io_of(engines), options), engines)
    for call in range(2):
        inputs = toy_inputs(model, options, call)
        results = executor.submit(inputs).result(None)
        made, wanted = results.arrays, plain_loop(engines, inputs, options)
        for name, array in wanted.items():
            assert np.abs(made[name] - array).max() <= 1e-5 * np.abs(array).max()
        assert set(results.seconds) == {"VAE encode", "denoise", "VAE decode"}


def test_wrong_inputs_are_refused() -> None:
    engines = toy_engines()
    executor = HostExecutor(chunk_program(MODEL, io_of(engines), OPTIONS[0]), engines)
    inputs = toy_inputs(MODEL, OPTIONS[0])
    with pytest.raises(EngineError, match=r"faces is \[15, 64, 64, 3\]"):
        executor.submit(inputs | {"faces": inputs["faces"][:15]})


def test_values_that_are_not_finite_are_an_error() -> None:
    engines = toy_engines()
    executor = HostExecutor(chunk_program(MODEL, io_of(engines), OPTIONS[0]), engines)
    runner = ChunkRunner(Only(executor), MODEL, seeded_noise(0))
    tokens = np.zeros((16, MODEL.tokens, MODEL.audio_dim), np.float32)
    faces = np.zeros((16, 64, 64, 3), np.uint8)
    runner.result(runner.submit(faces, tokens, 0))
    tokens[5] = np.nan
    pending = runner.submit(faces, tokens, 1)
    with pytest.raises(NonFiniteOutput, match="1 of 16 decoded faces"):
        runner.result(pending)


def test_a_call_that_overflows_is_done_once_more_in_the_wider_precision() -> None:
    """The narrow engines lose the picture to NaN; the wide ones give it, from the same inputs."""
    engines, options = toy_engines(), OPTIONS[1]
    narrow = dict(engines)

    class Overflowing(ToyEngine):
        def run(self, feed_dict: FeedDict) -> dict[str, Array]:
            made = super().run(feed_dict)
            loud = float(np.abs(feed_dict["encoder_hidden_states"]).max()) > 100
            return {name: array * np.float32(np.nan if loud else 1) for name, array in made.items()}

    narrow["unet"] = Overflowing("unet", MODEL)
    wide = Only(HostExecutor(chunk_program(MODEL, io_of(engines), options), engines))
    program = chunk_program(MODEL, io_of(narrow), options)
    with_wide = ChunkRunner(Only(HostExecutor(program, narrow)), MODEL, seeded_noise(0), fallback=lambda: wide)
    without = ChunkRunner(Only(HostExecutor(program, narrow)), MODEL, seeded_noise(0))
    plain = ChunkRunner(Only(HostExecutor(program, engines)), MODEL, seeded_noise(0))
    faces = np.full((16, 64, 64, 3), 90, np.uint8)
    for call, loudness in enumerate((1, 200)):
        tokens = np.full((16, MODEL.tokens, MODEL.audio_dim), loudness, np.float32)
        first, second, third = (d.submit(faces, tokens, call) for d in (with_wide, without, plain))
        wanted = plain.result(third)["pixels"]
        assert np.array_equal(with_wide.result(first)["pixels"], wanted)
        if loudness == 1:
            assert np.array_equal(without.result(second)["pixels"], wanted)
    with pytest.raises(NonFiniteOutput, match="--fallback"):
        without.result(second)
    assert with_wide.repeated == 1
