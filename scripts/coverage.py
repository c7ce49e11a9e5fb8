"""What the tests reach, branches and all: python -m scripts.coverage, after `make coverage`'s tests.

Missed lines are told in two lists: those of functions that call CUDA, NVML or a plan that is loaded, which only a GPU
reaches, and all others. At least 90 % of what needs no GPU must be reached.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

LOWEST = 90.0
ROOT = Path(__file__).parents[1]
_ROOMS = ("engines", "denoising", "bench", "runtime")
_SIGNS = ("cuda", "nvml", "stream", "device", "context")
"""Words in the names that a function of these rooms uses, by which it is known to need a GPU; see `_needs_gpu`."""


def _functions(path: Path) -> list[tuple[int, int, bool]]:
    """(first line, last line, whether it needs a GPU) of every function, innermost last."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    some = path.relative_to(ROOT).parts[1] in _ROOMS
    return [(node.lineno, node.end_lineno or node.lineno, some and _needs_gpu(node)) for node in found]


def _needs_gpu(function: ast.AST) -> bool:
    """Whether the function's own code names CUDA, NVML, or a plan's stream, memory or context."""
    names = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(function) if isinstance(node, ast.Attribute)}
    return any(sign in name.lower() for name in names for sign in _SIGNS)


def _report() -> dict[str, Any]:
    """coverage's own report, as JSON, of all processes of the last run."""
    subprocess.run([sys.executable, "-m", "coverage", "combine", "-q"], cwd=ROOT, check=False)
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [sys.executable, "-m", "coverage", "json", "-q", "-o", file.name]
        subprocess.run(command, cwd=ROOT, check=True)  # noqa: S603  (this interpreter, and constants)
        found: dict[str, Any] = json.loads(Path(file.name).read_text(encoding="utf-8"))
    subprocess.run([sys.executable, "-m", "coverage", "html", "-q", "-d", "build/coverage"], cwd=ROOT, check=True)
    return found


def _spans(lines: list[int]) -> str:
    """`3-5, 9` of [3, 4, 5, 9]."""
    spans: list[list[int]] = []
    for line in lines:
        if spans and line == spans[-1][1] + 1:
            spans[-1][1] = line
        else:
            spans.append([line, line])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)


def main() -> int:
    """Print both lists and the shares; 1 where too little is reached."""
    report = _report()
    gpu: dict[str, list[int]] = {}
    other: dict[str, list[int]] = {}
    reached = total = on_gpu = 0
    for name, file in report["files"].items():
        functions = _functions(ROOT / name)
        summary = file["summary"]
        reached += summary["covered_lines"] + summary["covered_branches"]
        total += summary["num_statements"] + summary["num_branches"]
        for line in file["missing_lines"]:
            around = [needs for first, last, needs in functions if first <= line <= last]
            (gpu if around and around[-1] else other).setdefault(name, []).append(line)
        branches = file.get("missing_branches", [])
        lines = set(gpu.get(name, []))
        on_gpu += len(lines) + sum(1 for start, _ in branches if start in lines)
    print("Only a GPU reaches:")
    for name, missed in gpu.items():
        print(f"  {name}: {_spans(sorted(missed))}")
    print("Not reached, and needs no GPU:")
    for name, missed in other.items():
        print(f"  {name}: {_spans(sorted(missed))}")
    share = 100 * reached / (total - on_gpu)
    print(f"reached, lines and branches: {100 * reached / total:.1f} %; of what needs no GPU: {share:.1f} %")
    if share < LOWEST:
        print(f"under {LOWEST:g} %: write tests for what is listed")
    return 0 if share >= LOWEST else 1


if __name__ == "__main__":
    sys.exit(main())
