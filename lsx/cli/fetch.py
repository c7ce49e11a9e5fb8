"""`lsx fetch`: a released checkpoint from the model hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lsx.cli.console import emit, export_extra, out
from lsx.cli.progress import task

if TYPE_CHECKING:
    from lsx.models.fetching import HubFile

__all__ = ["fetch"]


def fetch(
    model: Annotated[str, typer.Argument(help="latentsync-1.5 (256 px) or latentsync-1.6 (512 px).")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Checkpoint folder to write.")],
    hub: Annotated[str | None, typer.Option(help="The hub's address, default $HF_ENDPOINT or huggingface.co.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be downloaded, and stop.")] = False,
) -> None:
    """Download a released checkpoint from the model hub, arranged as lsx export takes it. Interrupted, it goes on."""
    export_extra()
    from lsx.models.fetching import check_fetch, plan_fetch
    from lsx.models.fetching import fetch as fetch_files

    check_fetch(model, output)
    with task("fetch") as work:
        work.update("asking the hub")
        plan = plan_fetch(model, output, endpoint=hub)
    for file in plan.files:
        state = "to download" if file in plan.missing else "there"
        out.print(f"{file.path}: {file.size / 2**20:.0f} MiB, {file.repository}, {state}", markup=False)
    out.print(f"to download: {plan.bytes / 2**30:.2f} GiB")
    emit(model=model, bytes=plan.bytes, files=[file.path for file in plan.files])
    if dry_run:
        return
    with task("fetch") as work:

        def show(file: HubFile, come: int) -> None:
            note = f"{come / 2**20:.0f} of {plan.bytes / 2**20:.0f} MiB"
            work.update(f"downloading {file.path}", come, max(plan.bytes, 1), note)

        fetch_files(plan, output, endpoint=hub, progress=show)
    out.print(f"checkpoint: {output} ({model}; every hash is the hub's)")
    out.print(f"next: lsx export {output} -o BUNDLE --precision fp16")
    emit(checkpoint=str(output))
