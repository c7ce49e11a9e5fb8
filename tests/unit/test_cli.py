"""The command line is a skin: its flags are the library's parameters."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lsx.calibration.calibrate import CalibrationOptions
from lsx.calibration.calibrate import calibrate as calibrate_library
from lsx.cli import aliases, build, calibrate, checkpoint, data, export, run, verify
from lsx.cli.aliases import current_arguments
from lsx.cli.main import main
from lsx.cli.options import parse_interval
from lsx.core.footage import FootageOptions
from lsx.core.sampling import SamplingOptions
from lsx.engines.registry import EngineOptions
from lsx.engines.tensorrt.build_options import BuildOptions
from lsx.engines.tensorrt.building import build_plans
from lsx.errors import UsageError
from lsx.export.exporter import export_bundle
from lsx.export.options import ExportOptions
from lsx.media.encoding import EncodeOptions
from lsx.models.checkpoint import Checkpoint
from lsx.models.checkpoint_files import CheckpointFiles
from lsx.models.random_checkpoint import random_checkpoint
from lsx.quantization.options import QuantizeOptions
from lsx.runtime.lipsync import LipSync
from lsx.training.prepare import PrepareOptions
from lsx.training.prepare import prepare as prepare_library
from lsx.verify.verify import VerifyOptions
from lsx.verify.verify import verify as verify_library

_PRINTING = {"json", "quiet", "verbose"}


def _names(*functions: Callable[..., Any]) -> set[str]:
    """Names of parameters; of a dataclass, its fields."""
    return {name for f in functions for name in inspect.signature(f).parameters} - _PRINTING


def test_run_is_lipsync_run() -> None:
    # The opening's options and the run's; a bundle for a path, the bar for a callback, Ctrl-C for a token. One run has
    # its process for itself: no other takes turns or memory.
    options = _names(EngineOptions, SamplingOptions, EncodeOptions) - {"guidance_batch", "float32"}
    options |= set(FootageOptions.model_fields)
    library = _names(LipSync.open, LipSync.run) - {"self", "engine", "sampling", "footage", "encode", "keywords"}
    assert (
        _names(run.run) - {"bundle", "warm_up", "report_file"}
        == (library - {"path", "progress", "cancel", "priority", "run_memory"}) | options
    )
    defaults = {f.name: f.default for kind in (SamplingOptions, EncodeOptions) for f in dataclasses.fields(kind)}
    flags = {n: p.default for n, p in inspect.signature(run.run).parameters.items()}
    for name in ("seed", "crf", "audio_codec"):
        assert flags[name] == defaults[name]
    for name in ("steps", "guidance", "cache_interval", "sampler"):  # the bundle's own
        assert flags[name] is None
    chosen = {name: flags[name] for name in FootageOptions.model_fields}
    assert FootageOptions(**chosen) == FootageOptions()


def test_export_is_export_bundle() -> None:
    library = _names(export_bundle, ExportOptions, Checkpoint.__init__, CheckpointFiles) - {
        "self",
        "files",
        "progress",
        "options",
        "quantization",
        "sampling",  # found beside the student's weights, by its name
    }
    assert _names(export.export) == library | _names(QuantizeOptions) | {"build", "calibration"}


def test_calibrate_is_calibrate() -> None:
    options = {"steps", "guidance", "seed", "cache_interval", "min_face"}  # of SamplingOptions and ClipOptions
    library = _names(calibrate_library, CalibrationOptions) - {"options", "settings", "progress", "surveyed", "paths"}
    assert _names(calibrate.calibrate) == library | options | {"dry_run"}


def test_verify_is_verify() -> None:
    engine = {"provider", "threads", "checkpoint_dir"}
    library = _names(verify_library, VerifyOptions, SamplingOptions) - {
        "options",
        "settings",
        "engine",
        "progress",
        "thresholds",
    }
    assert _names(verify.verify) == library | engine | {"output", "threshold"}


@pytest.mark.parametrize(
    ("given", "current"),
    [
        (["run", "--inference_steps", "4"], ["run", "--steps", "4"]),
        (["run", "--guidance-scale=1.2"], ["run", "--guidance=1.2"]),
        (["verify", "b", "--no-stamp", "--calls", "3"], ["verify", "b", "--no-record", "--max-chunks", "3"]),
        (["calibrate", "--calls", "3"], ["calibrate", "--samples", "3"]),
        (["bench", "--reference", "d"], ["bench", "--checkpoint-dir", "d"]),
        (["build", "--", "--reference"], ["build", "--", "--reference"]),
        (["run", "--num-warmup-runs", "5", "b"], ["run", "--warm-up", "b"]),
        (["run", "--num_warmup_runs=0", "b"], ["run", "b"]),
        (["prepare", "--reference", "d"], ["prepare", "--checkpoint-dir", "d"]),
        (["batch", "--reference=d"], ["batch", "--checkpoint-dir=d"]),
    ],
)
def test_other_names_of_flags(given: list[str], current: list[str]) -> None:
    assert current_arguments(given) == current


def test_other_names_of_flags_are_on_the_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "run.md").read_text(encoding="utf-8")
    names = {*aliases._ALIASES["run"], *aliases._WARM_UP_RUNS} - {*aliases._CHECKPOINT}
    assert [name for name in sorted(names) if f"`{name}`" not in page] == []


@pytest.mark.parametrize("count", [["-o", "out.mp4"], ["abc"], ["-1"], []])
def test_a_number_of_warm_ups_is_one(count: list[str]) -> None:
    with pytest.raises(UsageError, match=r"--num-warmup-runs is .*give a whole number from 0 on"):
        current_arguments(["run", "b", "v", "s", "--num-warmup-runs", *count])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--cache", "3"], "No such option: --cache. Did you mean --cache-interval? See: lsx run --help"),
        (["run", "--guidence", "2"], "Did you mean --guidance? See"),
        (["run", "--step", "2"], "Did you mean --steps? See"),
        (["run", "--calls", "2"], "No such option: --calls. See: lsx run --help"),
        (["run", "--superres"], "No such option: --superres. See: lsx run --help"),
        (["run", "--no-cuda-grap"], "Did you mean --no-cuda-graph? See"),
        (["--jsn", "run"], "Did you mean --json? See: lsx --help"),
        (["trian"], "No such command 'trian'. Did you mean 'train', 'triton'? See: lsx --help"),
        (["verify", "b", "--clip", "v"], "requires 2 arguments. See: lsx verify --help"),
        (["--quiet", "data", "prepare", "-o"], "requires an argument. See: lsx data prepare --help"),
        (["run", "b", "v", "s", "--num-warmup-runs", "-o", "o.mp4"], "--num-warmup-runs is -o; give a whole number"),
    ],
)
def test_what_is_mistyped(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert said in capsys.readouterr().err


def test_build_is_build_plans() -> None:
    options = {field.name for field in dataclasses.fields(BuildOptions)}
    library = _names(build_plans) - {"progress", "options"} | options
    assert _names(build.build) == library - {"targets"} | {"target"}
    defaults = {field.name: field.default for field in dataclasses.fields(BuildOptions)}
    flags = {n: p.default for n, p in inspect.signature(build.build).parameters.items()}
    assert {name: flags[name] for name in options} == defaults


@pytest.mark.parametrize(("text", "size"), [("4GiB", 2**32), ("512M", 2**29), ("1048576", 2**20), ("1.5 KiB", 1536)])
def test_sizes(text: str, size: int) -> None:
    assert build.parse_size(text) == size
    for wrong in ("4 bananas", "", "-1", "GiB"):
        with pytest.raises(UsageError, match="--workspace"):
            build.parse_size(wrong)


def test_checkpoint_random_is_random_checkpoint() -> None:
    assert _names(checkpoint.random) == _names(random_checkpoint)


def test_data_prepare_is_prepare() -> None:
    library = _names(prepare_library, PrepareOptions) - {"options", "progress"}
    assert _names(data.prepare) == library
    flags = {n: p.default for n, p in inspect.signature(data.prepare).parameters.items()}
    defaults = {f.name: f.default for f in dataclasses.fields(PrepareOptions) if f.name != "bundle"}
    assert {name: flags[name] for name in defaults} == defaults


def test_cache_interval() -> None:
    assert parse_interval("off") is None
    assert parse_interval("3") == 3
    for wrong in ("0", "-1", "x", ""):
        with pytest.raises(UsageError):
            parse_interval(wrong)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--version"], 0),
        (["run", "--help"], 0),
        ([], 0),
        (["fly"], 2),
        (["run"], 2),
        (["inspect", "/nowhere"], 1),
        (["build"], 2),
        (["build", "/nowhere"], 1),
        (["build", "x", "--opt-level", "9"], 2),
    ],
)
def test_exit_codes(arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == code
    if code:
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert line.startswith("lsx: ")
