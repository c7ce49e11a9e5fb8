"""`lsx triton`: a bundle as a model of NVIDIA's Triton Inference Server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lsx.bundle.bundle import Bundle
from lsx.cli.console import command, emit, out
from lsx.cli.options import BackendName, BundlePath
from lsx.errors import UsageError

__all__ = ["app"]

app = typer.Typer(help="A bundle as a model of Triton Inference Server.", no_args_is_help=True)


@app.callback()
def _root() -> None:
    """A bundle as a model of Triton Inference Server."""


def export(
    bundle: BundlePath,
    output: Annotated[Path, typer.Option("--output", "-o", help="Model repository; other models in it stay.")],
    name: Annotated[str, typer.Option(help="The model's name and folder.")] = "latentsync",
    gpus: Annotated[str, typer.Option(help="Numbers of the GPUs with an instance each, by commas; none: CPU.")] = "0",
    backend: BackendName = "auto",
    graphs: Annotated[
        bool, typer.Option("--graphs", help="Also each graph as a model of its own: a TensorRT plan, or ONNX.")
    ] = False,
) -> None:
    """Write a model repository: one decoupled model of the Python backend, with the bundle in it."""
    from lsx.serving.triton.repository import export_repository

    opened = Bundle.open(bundle)
    model = export_repository(opened, output, name=name, backend=backend, gpus=_numbers(gpus), graphs=graphs)
    emit(model=str(model), name=name, gpus=list(_numbers(gpus)))
    out.print(f"model: {model} (tritonserver --model-repository {output})")


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return () if text == "none" else tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"gpus is {text!r}; give numbers by commas, as 0,1, or none") from None


app.command("export")(command(export))
