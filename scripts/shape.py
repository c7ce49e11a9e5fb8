"""The shape of the code: how long functions are, how many parameters they take, how large rooms and files are.

python scripts/shape.py [--lines 40] [--parameters 7] [--check]

`--check` prints what is over the limits outside the command line and the public API, and fails where there is any.
"""

from __future__ import annotations

import argparse
import ast
import statistics
import sys
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


def public_names() -> set[str]:
    """What `from lsx import` gives."""
    tree = ast.parse(Path("lsx/__init__.py").read_text(encoding="utf-8"))
    [names] = [n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__"]
    return {node.value for node in ast.walk(names) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def inner() -> Iterator[tuple[Path, Function]]:
    """The functions that are neither of the command line nor of the public API."""
    public = public_names()
    for path in sorted(Path("lsx").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        known = {id(n) for n in tree.body if isinstance(n, Function) and n.name in public}
        for kind in (n for n in tree.body if isinstance(n, ast.ClassDef) and n.name in public):
            known |= {id(n) for n in kind.body if isinstance(n, Function) and not n.name.startswith("_")}
        for node in ast.walk(tree):
            if isinstance(node, Function) and path.parts[1] != "cli" and id(node) not in known:
                yield path, node


def check(lines: int, parameters: int, ninth: int = 20) -> int:
    """Print the functions that are over the limits; 1 where there are any, or one in ten is longer than `ninth`."""
    found, wrong = list(inner()), 0
    for path, node in found:
        if lines_of(node) > lines or parameters_of(node) > parameters:
            print(f"{path}:{node.lineno} {node.name}: {lines_of(node)} lines, {parameters_of(node)} parameters")
            wrong = 1
    p90 = statistics.quantiles([lines_of(node) for _, node in found], n=10)[8]
    print(f"{len(found)} inner functions of at most {lines} lines and {parameters} parameters: p90 {p90:g} lines")
    return 1 if wrong or p90 > ninth else 0


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=40)
    parser.add_argument("--parameters", type=int, default=7)
    parser.add_argument("--check", action="store_true")
    limits = parser.parse_args()
    if limits.check:
        return check(limits.lines, limits.parameters)
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
    return 0


if __name__ == "__main__":
    sys.exit(main())
