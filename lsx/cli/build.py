"""`lsx build`: a bundle's graphs to TensorRT plans."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from lsx.bundle.bundle import Bundle
from lsx.cli.console import counted, emit, mode, out
from lsx.cli.options import BundlePath, names_of
from lsx.cli.progress import task
from lsx.engines.tensorrt.build_options import BuildOptions
from lsx.engines.tensorrt.building import PLANNED, BuildReport, build_plans
from lsx.engines.tensorrt.libraries import libraries_that_build
from lsx.errors import BackendUnavailable, UsageError

__all__ = ["build", "parse_size", "run_build"]

_UNITS = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "K": 2**10, "M": 2**20, "G": 2**30}


def build(
    bundle: BundlePath,
    backend: Annotated[
        str | None, typer.Option(help="tensorrt or tensorrt-rtx; default each that is installed and can build here.")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            help="Targets, by commas: for tensorrt-rtx sm75, sm80, sm86, sm89, sm120, sm121, portable (the default: "
            "8.0, 8.6, 8.9, 12.0 and later) or current (the GPU at hand); for tensorrt the GPU at hand."
        ),
    ] = None,
    graphs: Annotated[str | None, typer.Option(help=f"Graphs, by commas; default {','.join(PLANNED)}.")] = None,
    guidance: Annotated[
        str | None, typer.Option(help="Batches to build for: on (2), off (1) or both; default on, off for a student.")
    ] = None,
    opt_level: Annotated[int, typer.Option(help="Builder optimisation level, 0..5.")] = 3,
    workspace: Annotated[str | None, typer.Option(help="Most scratch memory of a tactic, such as 4GiB.")] = None,
    aux_streams: Annotated[int | None, typer.Option(help="Most auxiliary streams, 0..7.")] = None,
    timing_cache: Annotated[Path | None, typer.Option(help="File of measured tactics, read and written.")] = None,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Plans for later versions of the library too; they carry code.")
    ] = False,
    hardware_compatible: Annotated[
        bool, typer.Option("--hardware-compatible", help="tensorrt plans for every GPU from 8.0 on.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Build also what is there and fits.")] = False,
) -> None:
    """Build a bundle's plans. What is there and fits is kept; an interrupted build leaves nothing half-written."""
    options = BuildOptions(
        opt_level=opt_level,
        workspace=None if workspace is None else parse_size(workspace),
        aux_streams=aux_streams,
        timing_cache=timing_cache,
        version_compatible=version_compatible,
        hardware_compatible=hardware_compatible,
        guidance=guidance,  # type: ignore[arg-type]  # checked there
    )
    opened = Bundle.open(bundle)
    backends = (backend,) if backend is not None else libraries_that_build()
    if not backends:
        raise BackendUnavailable("no TensorRT here that can build. Install one: pip install 'lsx[rtx]'")
    built, reused = 0, 0
    fallback = opened.fallback()
    bundles = (opened,) if fallback is None else (opened, fallback)
    for one, name in ((one, name) for one in bundles for name in backends):
        report = run_build(
            one,
            name,
            targets=names_of(target),
            graphs=names_of(graphs) or PLANNED,
            options=options,
            force=force,
        )
        built, reused = built + len(report.built), reused + len(report.kept)
    if not built:
        there = f"all {reused} plans are there and fit" if reused != 1 else "the one plan is there and fits"
        out.print(f"nothing to build: {there} (--force builds again)")


def run_build(
    bundle: Bundle,
    backend: str,
    *,
    targets: tuple[str, ...] = (),
    graphs: tuple[str, ...] = PLANNED,
    options: BuildOptions,
    force: bool = False,
) -> BuildReport:
    """Build with a progress bar, and print what was built."""
    with task("build") as work:
        report = build_plans(
            bundle,
            backend,
            targets=targets,
            graphs=graphs,
            options=options,
            force=force,
            progress=lambda label, share: work.update(label, share, 1.0, f"{100 * share:.0f} %"),
        )
    plans = mode.result.setdefault("plans", [])
    plans += [plan.model_dump(mode="json") for plan in report.built]
    emit(kept=mode.result.get("kept", 0) + len(report.kept))
    for plan in report.built:
        out.print(
            f"plan: {bundle.path / plan.file.path} ({plan.file.size / 2**20:.1f} MiB, {plan.seconds:.0f} s, "
            f"peak memory {plan.peak_bytes / 2**30:.1f} GiB)"
        )
    if report.built and report.kept:
        out.print(f"kept: {counted(len(report.kept), 'plan')}, there before and fitting")
    return report


def parse_size(text: str) -> int:
    """Bytes of `4GiB`, `512M`, `1048576`. Raises UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", text)
    if match is None or match[2] not in _UNITS:
        raise UsageError(f"--workspace is {text}; give a size such as 4GiB, 512MiB")
    return int(float(match[1]) * _UNITS[match[2]])
