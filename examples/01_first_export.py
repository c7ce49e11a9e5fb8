"""A checkpoint to a bundle, and what is in it: python examples/01_first_export.py CHECKPOINT BUNDLE."""

import sys
from pathlib import Path

from lsx.export.exporter import export_bundle
from lsx.export.options import ExportOptions
from lsx.models.checkpoint import Checkpoint
from lsx.models.checkpoint_files import CheckpointFiles


def main(folder: Path, output: Path) -> None:
    """Export in fp32, and print each graph's largest error against PyTorch."""
    checkpoint = Checkpoint(CheckpointFiles.in_folder(folder))
    bundle = export_bundle(checkpoint, output, ExportOptions(precision="fp32"))
    print(f"{bundle.path}: {bundle.model.version}, {bundle.model.resolution} px")
    for name, graph in bundle.manifest.graphs.items():
        worst = max((parity.max_error for parity in graph.parity), default=0.0)
        print(f"{name}: {sum(graph.operators.values())} operators, largest error {worst:.2g}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
