"""The shape of the code: how long functions are, how many parameters they take, how large rooms and files are.

python scripts/shape.py [--lines 40] [--parameters 7]
"""

from __future__ import annotations

import argparse
import ast
import statistics
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions() -> Iterator[tuple[Path, Function]]:
    """Every function of lsx, with its file."""
    for path in sorted(Path("lsx").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, Function):
                yield path, node


def lines_of(node: Function) -> int:
    """Lines from `def` to the end, the docstring apart."""
    body = node.body
    first = body[0]
    documented = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    docstring = (first.end_lineno or first.lineno) - first.lineno + 1 if documented else 0
    return (node.end_lineno or node.lineno) - node.lineno + 1 - docstring


def parameters_of(node: Function) -> int:
    """Parameters, self and cls apart."""
    given = node.args
    names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=40)
    parser.add_argument("--parameters", type=int, default=7)
    limits = parser.parse_args()
    found = list(functions())
    lengths = sorted(lines_of(node) for _, node in found)
    deciles = statistics.quantiles(lengths, n=10)
    print(
        f"{len(found)} functions; lines: median {statistics.median(lengths):g}, p90 {deciles[8]:g}, most {lengths[-1]}"
    )
    for path, node in sorted(found, key=lambda pair: -lines_of(pair[1])):
        if lines_of(node) > limits.lines:
            print(f"  {lines_of(node)} lines: {path}:{node.lineno} {node.name}")
    for path, node in sorted(found, key=lambda pair: -parameters_of(pair[1])):
        if parameters_of(node) > limits.parameters and path.parts[1] != "cli":
            print(f"  {parameters_of(node)} parameters: {path}:{node.lineno} {node.name}")
    rooms: Counter[str] = Counter()
    for path in Path("lsx").rglob("*.py"):
        rooms[path.parts[1]] += len(path.read_text(encoding="utf-8").splitlines())
    total = sum(rooms.values())
    print(", ".join(f"{room} {count} ({100 * count / total:.0f} %)" for room, count in rooms.most_common()))


if __name__ == "__main__":
    main()
