"""A chunk's program: its graphs in order, what is kept of the chunk before, and graphs that do not belong."""

from __future__ import annotations

import numpy as np
import pytest

from lsx.core.model_spec import ModelSpec
from lsx.core.noise import named_noise
from lsx.core.sampling import SamplingOptions
from lsx.denoising.chunk_program import ProgramInputs, chunk_program, keeps_latents, loop_program
from lsx.denoising.executor import HostExecutor, io_of
from lsx.denoising.memory_plan import lifetimes, plan_memory
from lsx.denoising.program import Program, RunGraph, reads_and_writes
from lsx.denoising.schedule import schedule
from lsx.errors import EngineError
from tests.unit.test_program import LARGE, MODEL, OPTIONS, ToyEngine, plain_loop, toy_engines, toy_inputs


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_nothing_is_read_that_nothing_wrote(options: SamplingOptions) -> None:
    program = chunk_program(MODEL, io_of(toy_engines()), options)
    written = {b.name for owner in ("input", "constant") for b in program.owned(owner)}
    for operation in program.operations:
        reads, writes = reads_and_writes(operation)
        assert {view.buffer for view in reads} <= written
        written |= {view.buffer for view in writes}
    assert {b.name for b in program.owned("output")} <= written


def test_the_features_stay_until_the_last_shallow_step() -> None:
    program = chunk_program(MODEL, io_of(toy_engines()), SamplingOptions(steps=7, cache_interval=3))
    spans = lifetimes(program)
    unets = [
        (i, o.graph) for i, o in enumerate(program.operations) if isinstance(o, RunGraph) and o.graph.startswith("unet")
    ]
    assert [graph for _, graph in unets] == ["unet", "unet_shallow", "unet_shallow"] * 2 + ["unet"]
    assert spans["deep.1"] == (unets[0][0], unets[2][0])
    assert spans["deep.4"] == (unets[3][0], unets[5][0])


@pytest.mark.parametrize(
    ("model", "options"), [(LARGE, OPTIONS[1]), *((MODEL, options) for options in OPTIONS)], ids=str
)
def test_latents_that_are_kept_equal_a_plain_loop(options: SamplingOptions, model: ModelSpec) -> None:
    engines = toy_engines(model)
    program = chunk_program(model, io_of(engines), options, given=ProgramInputs(kept=True))
    kept = named_noise("kept", (options.steps + 1, 5, model.frames, model.latent, model.latent), 0)
    kept[:, 4] = np.linspace(1, 0, model.frames, dtype=np.float32)[:, None, None]
    inputs = toy_inputs(model, options) | {"kept": kept}
    made = HostExecutor(program, engines).submit(inputs).result(None).arrays
    wanted = plain_loop(engines, inputs, options)
    assert set(made) == {*wanted, "nonfinite"}
    for name, array in wanted.items():
        assert np.abs(made[name] - array).max() <= 1e-5 * np.abs(array).max()
    # all of the first frame's latents are the neighbour's, none of the last one's
    assert np.abs(made["steps_out"][:, :, 0] - kept[:, :4, 0]).max() <= 1e-5
    plan_memory(program)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_nothing_kept_changes_no_bit(options: SamplingOptions) -> None:
    inputs, made = toy_inputs(MODEL, options), []
    for keeps in (True, False):
        engines = toy_engines(keeps=keeps)
        executor = HostExecutor(chunk_program(MODEL, io_of(engines), options), engines)
        made.append(executor.submit(inputs).result(None).arrays)
    assert set(made[0]) == set(made[1])
    assert all(np.array_equal(made[0][name], made[1][name]) for name in made[0])


def test_graphs_that_keep_no_latents_are_not_given_any() -> None:
    graphs = io_of(toy_engines(keeps=False))
    assert not keeps_latents(graphs)
    with pytest.raises(EngineError, match="takes no latents to keep: export it again"):
        chunk_program(MODEL, graphs, OPTIONS[0], given=ProgramInputs(kept=True))


def test_a_graph_that_does_not_belong_is_refused() -> None:
    engines = toy_engines() | {"unet": ToyEngine("unet", ModelSpec(version="test", resolution=128))}
    with pytest.raises(EngineError, match="do not belong together"):
        chunk_program(MODEL, io_of(engines), OPTIONS[0])


def graphs_of(program: Program) -> list[str]:
    return [operation.graph for operation in program.operations if isinstance(operation, RunGraph)]


def test_the_graphs_of_a_chunk_in_order() -> None:
    """Five steps, a full one in three: `step` makes the first one's input, and follows each."""
    options = SamplingOptions(steps=5, cache_interval=3)
    program = chunk_program(MODEL, io_of(toy_engines()), options)
    unets = ["unet", "unet_shallow", "unet_shallow", "unet", "unet_shallow"]
    loop = ["step", *(graph for unet in unets for graph in (unet, "step"))]
    assert graphs_of(program) == ["vae_encoder", *loop, "vae_decoder"]
    phases = [operation.phase for operation in program.operations]
    assert phases == ["VAE encode", *["denoise"] * len(loop), "VAE decode"]
    assert graphs_of(loop_program(MODEL, io_of(toy_engines()), options)) == loop
    encoded = chunk_program(MODEL, io_of(toy_engines()), options, given=ProgramInputs(conditioning=True))
    assert graphs_of(encoded) == [*loop, "vae_decoder"]
    assert {b.name for b in encoded.owned("input")} == {b.name for b in program.owned("input")} - {"noise"} | {
        "conditioning"
    }


def test_a_vae_that_takes_a_part_of_the_frames_sees_each_once() -> None:
    program = chunk_program(LARGE, io_of(toy_engines(LARGE)), OPTIONS[0])
    assert LARGE.vae_frames == 2
    for graph in ("vae_encoder", "vae_decoder"):
        runs = [o for o in program.operations if isinstance(o, RunGraph) and o.graph == graph]
        assert [(o.feed["faces"].start, o.feed["faces"].stop) for o in runs] == [(n, n + 2) for n in range(0, 16, 2)]


def test_what_each_buffer_holds() -> None:
    program = chunk_program(MODEL, io_of(toy_engines()), OPTIONS[1], given=ProgramInputs(kept=True))
    f, h = MODEL.frames, MODEL.latent
    shapes = {b.name: b.shape for owner in ("input", "output") for b in program.owned(owner)}
    assert shapes == {
        "faces": (f, 64, 64, 3),
        "noise": (2, f, 4, h, h),
        "latents": (1, 4, f, h, h),
        "encoder_hidden_states": (2, f, MODEL.tokens, MODEL.audio_dim),
        "guidance": (1,),
        "kept": (6, 5, f, h, h),
        "steps_out": (6, 4, f, h, h),
        "latents_out": (1, 4, f, h, h),
        "pixels": (f, 64, 64, 3),
        "nonfinite": (f,),
    }
    for index, step in enumerate(schedule(OPTIONS[1]), 1):
        assert program.constants[f"timestep.{index}"] == step.timestep
        np.testing.assert_array_equal(program.constants[f"coefficients.{index}"], step.coefficients)
