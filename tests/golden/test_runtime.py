"""The runtime against the original's recorded numbers: audio, alignment, the loop, and the whole path."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lsx.bundle.bundle import Bundle
from lsx.bundle.manifest import MANIFEST
from lsx.core.graph_names import FACE_GRAPHS, LOOP_GRAPHS
from lsx.core.noise import named_noise
from lsx.core.sampling import SamplingOptions
from lsx.core.tensors import Precision
from lsx.denoising.chunk_program import loop_program
from lsx.denoising.chunk_runner import audio_batch
from lsx.denoising.executor import HostExecutor, io_of
from lsx.denoising.program import Operation, RunGraph
from lsx.engines.engine import Array, Engine, FeedDict
from lsx.engines.loading import load_engine
from lsx.errors import IntegrityError, NonFiniteOutput
from lsx.faces.alignment import Aligner, Face, crop_face, crop_size, region_of
from lsx.faces.compositing import Compositor
from lsx.runtime.audio_features import AudioTokens, LogMel
from lsx.runtime.lipsync import LipSync
from tests.golden.test_reference import loop_inputs
from tests.seeded_inputs import landmarks, picture, waveform
from tests.simulated_device import SimulatedDevice, SimulatedEngine

Golden = Callable[[str], dict[str, NDArray[Any]]]
Bundles = Callable[[Precision, int], Bundle]


@pytest.mark.parametrize("samples", [19200, 23040, 495000])
def test_log_mel(golden: Golden, samples: int) -> None:
    recorded = golden("audio")
    mel = LogMel(waveform(samples))
    assert (80, mel.columns) == tuple(recorded[f"n{samples}_mel_shape"])
    segments = [mel.segment(3000 * i) for i in range(-(-mel.columns // 3000))]
    columns = np.concatenate(segments, axis=1)[:, recorded[f"n{samples}_mel_cols"]]
    assert np.abs(columns - recorded[f"n{samples}_mel"]).max() < 5e-5


@pytest.mark.parametrize("samples", [19200, 23040, 495000])
def test_audio_tokens(bundle: Bundles, golden: Golden, samples: int) -> None:
    recorded = golden("audio")
    opened = bundle("fp32", 128)
    with load_engine(opened, "audio_encoder") as engine:
        tokens = AudioTokens(engine, waveform(samples), opened.model)
        assert tokens.rows == recorded[f"n{samples}_feature_shape"][0]
        features = tokens.features(recorded[f"n{samples}_rows"].tolist())
        assert np.abs(features - recorded[f"n{samples}_features"]).max() < 1e-4
        frames = tokens.tokens(recorded[f"n{samples}_frames"].tolist())
        assert np.abs(frames - recorded[f"n{samples}_tokens"]).max() < 1e-4


@pytest.mark.parametrize("resolution", [256, 512])
def test_alignment(golden: Golden, resolution: int) -> None:
    recorded = golden("alignment")
    points = landmarks(8, 360, 640)
    assert np.array_equal(points, recorded["points"])
    aligner = Aligner(resolution)
    affines = [aligner.affine(p) for p in points]
    assert np.abs(np.stack(affines) - recorded[f"r{resolution}_affine"]).max() < 1e-3
    compositor = Compositor()
    for index in (0, 5):
        frame = picture(360, 640, 0.1 * index)
        crop = crop_face(frame, affines[index], resolution).astype(int)
        assert np.abs(crop - recorded[f"r{resolution}_crop{index}"]).max() <= 1
        # The recorded face is a float one; rounding it to uint8 is what the graph contract does.
        face = np.tanh(picture(resolution, resolution, 2 + index) / 127.5 - 1)
        result = frame.copy()
        compositor.paste(result, np.round((face + 1) * 127.5).astype(np.uint8), affines[index])
        wanted = recorded[f"r{resolution}_restored{index}"].astype(int)
        touched = (wanted != frame).any(-1)
        assert np.abs(result - wanted).max() <= 1
        assert np.abs(result - wanted)[touched].mean() < 0.1
        assert np.array_equal(result[~touched], frame[~touched])


@pytest.fixture(scope="module")
def loop_engines(bundle: Bundles) -> Iterator[tuple[Bundle, dict[str, Engine]]]:
    opened = bundle("fp32", 128)
    engines = {graph: load_engine(opened, graph) for graph in LOOP_GRAPHS}
    yield opened, engines
    for engine in engines.values():
        engine.close()


@pytest.mark.parametrize(
    ("name", "steps", "guidance", "interval"),
    [
        ("ddim4_guidance15", 4, 1.5, None),
        ("ddim4_guidance10", 4, 1.0, None),
        ("deepcache8_guidance15", 8, 1.5, 3),
        ("ddim20_final", 20, 1.5, None),
    ],
)
def test_loop_through_the_graphs(
    loop_engines: tuple[Bundle, dict[str, Engine]],
    golden: Golden,
    name: str,
    steps: int,
    guidance: float,
    interval: int | None,
) -> None:
    opened, engines = loop_engines
    noise, conditioning, audio = loop_inputs()
    options = SamplingOptions(steps=steps, guidance=guidance, cache_interval=interval)
    program = loop_program(opened.model, io_of(engines), options)
    made: list[Array] = []

    def observe(operation: Operation, written: Mapping[str, Array]) -> None:
        if isinstance(operation, RunGraph) and operation.graph == "step":
            made.append(written["latents_out"].copy())

    executor = HostExecutor(program, engines, observe)
    submission = executor.submit(
        {
            "latents": noise,
            "conditioning": conditioning,
            "encoder_hidden_states": audio_batch(audio, options.guidance_batch),
            "guidance": np.array([guidance], np.float32),
        }
    )
    assert np.array_equal(submission.result(None).arrays["latents_out"], made[-1])
    assert np.array_equal(made.pop(0), noise)  # the first step only makes the first input
    recorded = golden("denoising")[name]
    result = made[-1] if name.endswith("final") else np.stack(made)
    assert np.abs(result - recorded).max() < 1e-3 * np.abs(recorded).max()


class _Recorder:
    """The recorded pipeline through `LipSync.stream`, keeping what goes into and comes out of the VAE decoder."""

    def __init__(self, opened: Bundle, length: int = 32) -> None:
        self.latents: list[NDArray[np.float32]] = []
        self.faces: list[NDArray[np.uint8]] = []
        self.frames = [picture(360, 640, 0.1 * i) for i in range(20)]
        points = iter(landmarks(20, 360, 640))
        with LipSync.open(opened) as lipsync:
            decoder = lipsync.engines["vae_decoder"]
            run = decoder.run

            def recording(feed_dict: FeedDict) -> dict[str, Array]:
                outputs = run(feed_dict)
                self.latents.append(feed_dict["latents"].copy())
                self.faces.append(outputs["faces_out"])
                return outputs

            decoder.run = recording  # type: ignore[method-assign]
            self.results = list(
                lipsync.stream(
                    self.frames,
                    waveform(19200),
                    length=length,
                    steps=4,
                    guidance=1.5,
                    cache_interval=None,
                    detector=lambda _: Face(points=next(points)),
                    noise=lambda name, shape: named_noise(f"noise.{name}", shape, 0),
                )
            )


@pytest.fixture(scope="module")
def recorded_fp32(bundle: Bundles) -> _Recorder:
    return _Recorder(bundle("fp32", 256))


def test_pipeline_latents_and_faces(recorded_fp32: _Recorder, golden: Golden) -> None:
    recorded = golden("pipeline")
    index = recorded["frames_index"]
    latents = np.concatenate(recorded_fp32.latents, axis=2)[:, :, index]
    wanted = recorded["final_latents"]
    assert np.abs(latents - wanted).max() < 1e-3 * np.abs(wanted).max()
    faces = np.concatenate(recorded_fp32.faces)[index].astype(int)
    assert np.abs(faces - recorded["faces"]).max() <= 1


def test_pipeline_pictures(recorded_fp32: _Recorder, golden: Golden) -> None:
    recorded = golden("pipeline")
    results = recorded_fp32.results
    assert len(results) == 32
    assert np.abs([r.mean() for r in results] - recorded["restored_mean"]).max() < 0.05
    bounce = [*range(20), *range(19, 7, -1)]
    for wanted, index in zip(recorded["restored"], recorded["frames_index"], strict=True):
        original = recorded_fp32.frames[bounce[index]]
        touched = np.zeros(wanted.shape[:2], bool)
        affine = recorded["affine"][bounce[index]].astype(np.float64)
        x0, y0, x1, y1 = region_of(affine, crop_size(256), (360, 640))
        touched[y0:y1, x0:x1] = True
        apart = np.abs(results[index].astype(int) - wanted)
        assert (apart[touched].max(-1) > 2).mean() <= 0.001
        assert apart[touched].mean() < 0.1
        assert np.array_equal(results[index][~touched], wanted[~touched])
        assert np.array_equal(results[index][~touched], original[~touched])


def test_the_given_frames_are_not_painted_on(recorded_fp32: _Recorder) -> None:
    for index, frame in enumerate(recorded_fp32.frames):
        assert np.array_equal(frame, picture(360, 640, 0.1 * index))


def test_fp16_keeps_the_picture(recorded_fp32: _Recorder, bundle: Bundles) -> None:
    low = _Recorder(bundle("fp16", 256), length=16)  # the first chunk; the second is made as it is
    b = np.concatenate(low.faces).astype(float)
    a = np.concatenate(recorded_fp32.faces)[: len(b)].astype(float)
    assert 10 * np.log10(255**2 / np.mean((a - b) ** 2)) >= 40


def test_fp16_unet_cosine(bundle: Bundles, golden: Golden) -> None:
    with load_engine(bundle("fp16", 256), "unet") as engine:
        noise = engine.infer(
            {
                "sample": named_noise("b2f16h32.sample", (2, 13, 16, 32, 32), 0),
                "timestep": np.array([481.0], np.float32),
                "encoder_hidden_states": named_noise("b2f16h32.audio", (32, 50, 384), 0).reshape(2, 16, 50, 384),
            }
        )["noise_pred"]
    assert noise.dtype == np.float32
    a, b = noise.ravel().astype(float), golden("unet_forward")["b2f16h32"].ravel().astype(float)
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) >= 0.9999


def test_a_clip_through_the_cuda_executor_on_a_simulated_device(
    bundle: Bundles,
) -> None:
    """The same engines on the host, and through rings, streams and captured graphs: the same frames."""
    opened = bundle("fp32", 64)
    engines = {graph: load_engine(opened, graph) for graph in LOOP_GRAPHS}
    frames = [picture(360, 640, 0.1 * i) for i in range(20)]
    points = landmarks(20, 360, 640)
    beside = {graph: load_engine(opened, graph) for graph in ("audio_encoder", *FACE_GRAPHS)}
    device = SimulatedDevice()
    simulated = {name: SimulatedEngine(engine, device) for name, engine in engines.items()}
    made = []
    for loop in (engines, simulated):
        where = iter(points)
        lipsync = LipSync(opened, {**loop, **beside}, "test")
        stream = lipsync.stream(
            frames,
            waveform(19200),
            length=40,
            steps=1,
            guidance=1.0,
            detector=lambda _, where=where: Face(points=next(where)),  # type: ignore[misc]
        )
        made.append(list(stream))
    assert device.launches == 3
    assert len(made[0]) == 40
    for plain, ringed in zip(*made, strict=True):
        assert np.array_equal(plain, ringed)


def test_a_call_that_overflows_is_done_again_in_the_bundles_fallback(bundle: Bundles, tmp_path: Path) -> None:
    plain = bundle("fp32", 64)  # stands for both: what is tested is the way from one to the other
    folder = shutil.copytree(plain.path, tmp_path / "bundle")
    shutil.copytree(plain.path, folder / "fallback")
    manifest = plain.manifest.model_copy(update={"fallback": "fallback"})
    (folder / MANIFEST).write_text(manifest.text())
    frames, points = [picture(360, 640, 0.1 * i) for i in range(16)], landmarks(16, 360, 640)

    def clip(opened: Bundle, *, overflow: bool) -> list[NDArray[np.uint8]]:
        where = iter(points)
        with LipSync.open(opened, "onnxruntime") as lipsync:
            unet = lipsync.engines["unet"]
            run = unet.run

            def overflowing(feed_dict: FeedDict) -> dict[str, Array]:
                return {name: array * np.float32(np.inf) for name, array in run(feed_dict).items()}

            if overflow:
                unet.run = overflowing  # type: ignore[method-assign]
            stream = lipsync.stream(
                frames, waveform(9600), length=16, steps=1, guidance=1.0, detector=lambda _: Face(points=next(where))
            )
            made = list(stream)
            assert lipsync.schedules == {(1, 1, 3, "ddim", False, False): 0}  # nothing on a device
            return made

    made = clip(Bundle.open(folder), overflow=True)
    for frame, wanted in zip(made, clip(plain, overflow=False), strict=True):
        assert np.array_equal(frame, wanted)
    with pytest.raises(NonFiniteOutput, match="16 of 16"):
        clip(plain, overflow=True)
    (folder / "fallback" / "onnx" / "step.onnx").write_bytes(b"damaged")
    with pytest.raises(IntegrityError, match="step"):
        Bundle.open(folder).verify()
