"""A model repository for Triton: one decoupled model of its Python backend, the whole of a bundle behind it.

The denoising loop stays in lsx. A model a graph would send latents through Triton at each step, and lose CUDA graphs
and DeepCache.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from lsx.bundle.bundle import Bundle
from lsx.bundle.manifest import MANIFEST
from lsx.core.atomic_files import folder_beside, sha256_of
from lsx.errors import OutputError, UsageError
from lsx.serving.triton.graphs import GraphModel, graph_models

__all__ = ["CONFIG", "MODEL_NAME", "VERSION", "export_repository", "model_config"]

MODEL_NAME, VERSION, CONFIG = "latentsync", "1", "config.pbtxt"
_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_BUNDLE = "bundle"

_TEMPLATE = """\
# Written by lsx triton export. Inputs are files' bytes; docs/triton.md says what OPTIONS may have.
name: "{name}"
backend: "python"
max_batch_size: 0
model_transaction_policy {{ decoupled: true }}
input [
  {{ name: "VIDEO" data_type: TYPE_STRING dims: [ 1 ] }},
  {{ name: "AUDIO" data_type: TYPE_STRING dims: [ 1 ] }},
  {{ name: "OPTIONS" data_type: TYPE_STRING dims: [ 1 ] optional: true }}
]
output [
  {{ name: "FRAMES" data_type: TYPE_UINT8 dims: [ -1, -1, -1, 3 ] }},
  {{ name: "FIRST" data_type: TYPE_INT64 dims: [ 1 ] }},
  {{ name: "RESULT" data_type: TYPE_STRING dims: [ 1 ] }}
]
instance_group [
  {{ count: 1 {kind} }}
]
parameters {{ key: "bundle" value {{ string_value: "{bundle}" }} }}
parameters {{ key: "backend" value {{ string_value: "{backend}" }} }}
parameters {{ key: "manifest_sha256" value {{ string_value: "{digest}" }} }}
"""


def model_config(name: str, backend: str, gpus: Sequence[int], digest: str) -> str:
    """The text of config.pbtxt. gpus : numbers of the GPUs that get an instance each; none for the CPU alone."""
    kind = f"kind: KIND_GPU gpus: [ {', '.join(str(gpu) for gpu in gpus)} ]" if gpus else "kind: KIND_CPU"
    return _TEMPLATE.format(name=name, kind=kind, bundle=_BUNDLE, backend=backend, digest=digest)


def export_repository(
    bundle: Bundle,
    output: Path,
    *,
    name: str = MODEL_NAME,
    backend: str = "auto",
    gpus: Sequence[int] = (0,),
    graphs: bool = False,
) -> Path:
    """Write the model into the repository `output`, beside the models that are there, and give its folder.

    graphs : also write each graph as a model of its own, `NAME-unet` and the like, for Triton's own backends.
    The bundle's files are linked where the file system allows that, else copied: it may go afterwards. Raises
    UsageError for a name that Triton would not take, OutputError where nothing can be written.
    """
    if not _NAME.fullmatch(name) or name.startswith("."):
        raise UsageError(f"name is {name!r}; give letters, digits, _, - and . (it names the model's folder)")
    if len(set(gpus)) != len(gpus) or any(gpu < 0 for gpu in gpus):
        raise UsageError(f"gpus is {', '.join(map(str, gpus))}; give each number once, from 0 on")
    try:
        output.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"{output}: cannot be made: {error.strerror or error}") from error
    with folder_beside(output / name, "model", lambda folder: (folder / CONFIG).is_file()) as made:
        (made / VERSION).mkdir()
        (made / CONFIG).write_text(
            model_config(name, backend, gpus, sha256_of(bundle.path / MANIFEST)), encoding="utf-8"
        )
        shutil.copyfile(Path(__file__).with_name("model.py"), made / VERSION / "model.py")
        try:
            shutil.copytree(bundle.path, made / VERSION / _BUNDLE, copy_function=_linked)
        except (OSError, shutil.Error) as error:
            raise OutputError(f"{output}: the bundle cannot be copied there: {error}") from error
    for model in graph_models(bundle, name, gpus) if graphs else ():
        _write_graph(bundle, model, output)
    return output / name


def _write_graph(bundle: Bundle, model: GraphModel, output: Path) -> None:
    with folder_beside(output / model.name, "model", lambda folder: (folder / CONFIG).is_file()) as made:
        (made / VERSION).mkdir()
        (made / CONFIG).write_text(model.config, encoding="utf-8")
        try:
            for file in model.files:
                _linked(str(bundle.path / file), str(made / VERSION / Path(file).name))
        except OSError as error:
            raise OutputError(f"{output}: {model.name} cannot be copied there: {error}") from error


def _linked(source: str, target: str) -> str:
    """A hard link, or a copy where there can be none: nothing of a bundle is ever changed in place."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
    return target
