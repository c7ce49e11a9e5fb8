"""`lsx checkpoint`: making checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lsx.cli.console import command, emit, export_extra, out

__all__ = ["app", "random"]

app = typer.Typer(help="Make checkpoints.", no_args_is_help=False)


@app.callback()
def _root() -> None:
    """Make checkpoints."""


@app.command("random")
@command
def random(
    folder: Annotated[Path, typer.Argument(help="New folder to write.")],
    size: Annotated[str, typer.Option(help="small (the released topology), full (5.5 GB), or minimal.")] = "small",
    seed: Annotated[int, typer.Option(help="Seed of every weight.")] = 0,
    resolution: Annotated[int | None, typer.Option(help="Pixels; 256 by default.")] = None,
) -> None:
    """Write seeded random weights in the released files' formats. They make noise for a mouth: for tests and sizing."""
    export_extra()
    from lsx.models.checkpoint_files import check_new_checkpoint

    check_new_checkpoint(folder, size=size, seed=seed)  # before PyTorch is imported
    from lsx.models.random_checkpoint import random_checkpoint

    random_checkpoint(folder, size=size, seed=seed, resolution=resolution)
    out.print(f"checkpoint: {folder}")
    emit(checkpoint=str(folder))
