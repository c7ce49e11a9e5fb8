"""`lsx doctor`: what this machine has, and whether a bundle will run on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from lsx.cli.console import out
from lsx.errors import LsxError

__all__ = ["doctor"]


def doctor(
    bundle: Annotated[Path | None, typer.Argument(help="Also check this bundle.")] = None,
) -> None:
    """Print Python, libraries, GPU, backends, memory and disk; with a bundle, whether it is intact and what fits."""
    from lsx.machine import backends, facts

    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in facts(bundle or Path.cwd()):
        table.add_row(name, value)
    for name, works, detail in backends():
        table.add_row(f"backend {name}", escape(f"{'works' if works else 'does not work'}: {detail}"))
    out.print(table)
    if bundle is None:
        return
    from lsx.bundle import Bundle

    opened = Bundle.open(bundle)
    model = opened.model
    out.print(f"\nbundle {bundle}: {model.version}, {model.resolution} px, {opened.manifest.precision}")
    opened.verify()
    out.print("intact: every file is the one its manifest describes")
    if not opened.manifest.plans:
        out.print("plans: none; it runs on onnxruntime")
    for plan in opened.manifest.plans:
        out.print(f"plan {plan.file.path}: {plan.backend} {plan.library_version} for {plan.target}")
    try:
        opened.engine("step").close()
    except LsxError as error:
        out.print(f"does not run here: {error}")
        raise
    out.print("runs here: yes, on onnxruntime")
