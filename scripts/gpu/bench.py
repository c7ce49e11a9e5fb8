"""Stage 7: `lsx verify` and `lsx bench`, as a user would run them, on every backend that has plans or a device."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from examples.synthetic_clip import portrait_frames, speech, write_clip
from lsx.bench.report import read_report
from lsx.bundle.bundle import Bundle
from lsx.engines.registry import backend_named
from lsx.errors import LsxError
from scripts.gpu.checks import Checks, Skipped, need_torch_on_gpu
from scripts.gpu.models import bundles_of
from scripts.gpu.stage import Settings

__all__ = ["lsx_command", "run", "runnable"]


def run(checks: Checks, settings: Settings) -> None:
    """All of stage 7."""
    for name, bundle, reference in bundles_of(checks, settings):
        for backend in ("tensorrt", "tensorrt-rtx", "torch"):
            what = f"{backend}, {name}"
            checks.run(f"verify, {what}", _verified, bundle, backend, reference, settings.folder)
            checks.run(f"bench, {what}", _benched, bundle, backend, reference, settings.folder)
            checks.run(f"clients and live, {what}", _together, bundle, backend, settings.folder)


def runnable(bundle: Bundle, backend: str) -> None:
    """Raises Skipped where `backend` does not run the bundle on the GPU here."""
    if backend == "torch":
        need_torch_on_gpu()
    try:
        works, reason = backend_named(backend).availability()
        refused = backend_named(backend).reason_unsupported(bundle) if works else reason
    except LsxError as error:
        refused = str(error)
    if refused is not None:
        raise Skipped(refused)


def lsx_command(*arguments: str) -> None:
    print("$ lsx", *arguments, flush=True)
    command = [sys.executable, "-m", "lsx", "--debug", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)  # noqa: S603
    print(done.stdout, flush=True)
    if done.returncode != 0:
        lines = done.stdout.strip().splitlines() or ["no output"]
        raise RuntimeError(f"exit code {done.returncode}: {lines[-1]}")


def _verified(bundle: Bundle, backend: str, reference: Path, folder: Path) -> dict[str, Any]:
    runnable(bundle, backend)
    out = folder / f"verify-{backend}-{bundle.path.name}"
    lsx_command("verify", str(bundle.path), "--backend", backend, "--checkpoint-dir", str(reference), "-o", str(out))
    return {"report": out.name}


def _benched(bundle: Bundle, backend: str, reference: Path, folder: Path) -> dict[str, Any]:
    runnable(bundle, backend)
    out = folder / f"bench-{backend}-{bundle.path.name}"
    lsx_command("bench", str(bundle.path), "--backends", backend, "--checkpoint-dir", str(reference), "-o", str(out))
    rows = json.loads((out / "report.json").read_text())["rows"]
    return {f"{row['what']} on {row['contender']}": f"{1e3 * row['seconds']['median']:.4g} ms" for row in rows}


def _together(bundle: Bundle, backend: str, folder: Path) -> dict[str, Any]:
    """1, 2, 4 and 8 clients of one engine set on a short clip, and an avatar of it that speaks live."""
    runnable(bundle, backend)
    out, clip = folder / f"clients-{backend}-{bundle.path.name}", folder / "short.mp4"
    write_clip(clip, portrait_frames(32), sound=speech(1.28))
    common = ("--sections", "", "--clip", str(clip), str(clip), "--clients", "8", "--live", "--repeat", "5")
    lsx_command("bench", str(bundle.path), "--backends", backend, *common, "-o", str(out))
    report = read_report(out)
    said = {f"{row.clients} clients": " ".join(row.cells[1:]) for row in report.clients}
    return said | ({} if report.live is None else {"live": report.live.line})
