"""The command line is a skin: its flags are the library's parameters."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from lsx.calibration.calibrate import calibrate as calibrate_library
from lsx.cli import build, calibrate, checkpoint, export, run, verify
from lsx.cli.main import main
from lsx.cli.options import parse_interval
from lsx.engines.tensorrt.build_options import BuildOptions
from lsx.engines.tensorrt.building import build_plans
from lsx.errors import UsageError
from lsx.export.exporter import export_bundle
from lsx.models.checkpoint import Checkpoint, CheckpointFiles
from lsx.models.random_checkpoint import random_checkpoint
from lsx.quantization.quantize import QuantiseOptions
from lsx.runtime.lipsync import LipSync
from lsx.verify.verify import verify as verify_library


def _names(*functions: Callable[..., Any]) -> set[str]:
    return {name for f in functions for name in inspect.signature(f).parameters}


def test_run_is_lipsync_run() -> None:
    # The opening's parameters and the run's; a bundle for a path, the bar for a callback, Ctrl-C for a token.
    library = _names(LipSync.open, LipSync.run) - {"path", "self", "progress", "cancel", "threads"}
    assert _names(run.run) - {"bundle"} == library
    defaults = {n: p.default for n, p in inspect.signature(LipSync.run).parameters.items() if p.default is not p.empty}
    flags = {n: p.default for n, p in inspect.signature(run.run).parameters.items()}
    for name in ("steps", "guidance", "seed", "crf", "no_face"):
        assert flags[name] == defaults[name]
    assert parse_interval(flags["cache_interval"]) == defaults["cache_interval"]


def test_export_is_export_bundle() -> None:
    library = _names(export_bundle, Checkpoint.__init__, CheckpointFiles) - {
        "self",
        "files",
        "progress",
        "quantisation",
    }
    options = {field.name for field in dataclasses.fields(QuantiseOptions)}
    assert _names(export.export) == library | options | {"build", "calibration"}


def test_calibrate_is_calibrate() -> None:
    options = {"steps", "guidance", "seed", "cache_interval", "min_face"}  # of SamplingOptions and ClipOptions
    library = _names(calibrate_library) - {"options", "clip_options", "progress", "surveyed", "paths"}
    assert _names(calibrate.calibrate) == library | options | {"clips", "dry_run"}


def test_verify_is_verify() -> None:
    options = {"steps", "guidance", "seed", "cache_interval", "sampler"}
    library = _names(verify_library) - {"options", "progress", "thresholds"}
    assert _names(verify.verify) == library | options | {"output", "threshold"}


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
