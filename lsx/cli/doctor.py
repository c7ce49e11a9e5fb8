"""`lsx doctor`: what this machine has, and whether a bundle will run on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from lsx.bundle.bundle import Bundle
from lsx.cli.console import emit, out, show_table
from lsx.engines.loading import load_engine
from lsx.errors import LsxError

__all__ = ["doctor"]


def doctor(
    bundle: Annotated[Path | None, typer.Argument(help="Also check this bundle.")] = None,
) -> None:
    """Print Python, libraries, GPU, memory, disk, backends, encoders; with a bundle, whether it is intact and fits."""
    opened = None
    if bundle is not None:  # what is damaged is said at once, before libraries are tried
        opened = Bundle.open(bundle)
        opened.verify()
    _print_machine(bundle or Path.cwd())
    if opened is None:
        return
    model = opened.model
    out.print(f"\nbundle {bundle}: {model.version}, {model.resolution} px, {opened.manifest.precision}")
    out.print("intact: every file is the one its manifest describes")
    plans = _print_plans(opened)
    _print_memory(opened)
    try:
        load_engine(opened, "step").close()
    except LsxError as error:
        out.print(f"does not run here: {error}")
        raise
    out.print("runs here: yes, on onnxruntime")
    emit(bundle={"path": str(bundle), "precision": opened.manifest.precision, "intact": True, "plans": plans})


def _print_machine(folder: Path) -> None:
    """The machine, its backends and its encoders."""
    from lsx.media.encoding import encoders
    from lsx.reporting.system_info import backends, system_info

    table = Table(box=None, pad_edge=False, show_header=False)
    system = system_info(folder)
    for name, value in system:
        table.add_row(name, value)
    found_backends, found_encoders = backends(), encoders()
    for name, works, reason in found_backends:
        table.add_row(f"backend {name}", escape(f"{'works' if works else 'does not work'}: {reason}"))
    for codec, encoder, missing in found_encoders:
        table.add_row(
            f"encoder {encoder}", escape(f"{codec}: {'works' if missing is None else f'does not work: {missing}'}")
        )
    show_table(table)
    emit(
        system=dict(system),
        backends={name: {"works": works, "detail": reason} for name, works, reason in found_backends},
        encoders={name: {"codec": codec, "works": missing is None} for codec, name, missing in found_encoders},
    )


def _print_plans(bundle: Bundle) -> dict[str, str]:
    """Print which plans fit this machine, and why the others do not. Returns the same by path."""
    from lsx.engines.gpu_info import first_gpu
    from lsx.engines.registry import backend_named
    from lsx.engines.tensorrt.libraries import LIBRARIES
    from lsx.engines.tensorrt.plans import another_gpu, reason_stale

    if not bundle.manifest.plans:
        out.print(f"plans: none; it runs on onnxruntime. Build them: lsx build {bundle.path}")
    states = {}
    for plan in bundle.manifest.plans:
        missing = backend_named(plan.backend).missing(bundle)
        if missing:
            reason: str | None = f"does not run here: {'; '.join(missing)}"
        else:
            gpu = first_gpu()
            reason = reason_stale(bundle, plan, LIBRARIES[plan.backend], gpu)
            differs = another_gpu(plan, gpu)
            if reason is None and differs is not None:
                reason = f"fits, but was built {differs}"
        states[plan.file.path] = reason or "fits"
        out.print(f"plan {plan.file.path}: {states[plan.file.path]}", markup=False)
    return states


def _print_memory(bundle: Bundle) -> None:
    """What a run takes of a GPU, as far as it is known without one."""
    from lsx.denoising.chunk_program import chunk_program
    from lsx.denoising.cuda_executor import executor_bytes
    from lsx.denoising.executor import io_of_bundle
    from lsx.denoising.memory_plan import plan_memory

    program = chunk_program(bundle.model, io_of_bundle(bundle), bundle.sampling)
    device, pinned = executor_bytes(program, plan_memory(program))
    weights = sum(file.size for file in bundle.manifest.data)
    out.print(
        f"GPU memory: weights about {weights / 2**20:.0f} MiB, buffers and rings {device / 2**20:.0f} MiB "
        f"(and {pinned / 2**20:.0f} MiB of pinned host memory), besides activation memory, which the plans decide on "
        "the GPU"
    )
