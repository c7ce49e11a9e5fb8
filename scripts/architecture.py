"""Draw the rooms, a frame's way and a plan's way from the code: python scripts/architecture.py [--check].

`--check` fails where a drawing in docs/images is not what the code gives.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections import defaultdict
from html import escape
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"

PLAN = (
    "lsx.cli.build:build",
    "lsx.engines.tensorrt.building:build_plans",
    "lsx.engines.tensorrt.building:_request",
    "lsx.engines.tensorrt.building:_built",
    "lsx.engines.tensorrt.network:network_from_graph",
    "lsx.bundle.bundle:Bundle.add_plan",
)
"""What a plan goes through, in order; each must exist, and its docstring says what it does there."""

_WIDTH, _LINE, _PAD = 760, 18, 10
_STYLE = (
    "<style>text{font:13px system-ui,sans-serif;fill:#1d2433}.s{font-size:11px;fill:#5a6478}.b{font-weight:600}"
    "rect{fill:#f5f7fb;stroke:#8b97b1}.lean{stroke:#2d6cdf;stroke-width:2}path{stroke:#8b97b1;fill:none}</style>"
)


def rooms() -> str:
    """The layers of the import contract, with the lines of each room and what it imports directly."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    lean = next(c["source_modules"] for c in contracts if c["type"] == "forbidden")
    layers = next(c["layers"] for c in contracts if c["type"] == "layers")
    imports, lines = _imports()
    shapes, top = [], _PAD
    for layer in layers:
        names = [name.strip().removeprefix("lsx.") for name in layer.split("|")]
        width = (_WIDTH - _PAD * (len(names) + 1)) / len(names)
        texts = [_wrapped(", ".join(sorted(imports[name])) or "nothing of lsx", int(width / 6.2)) for name in names]
        height = 34 + 14 * max(len(text) for text in texts)
        for column, (name, text) in enumerate(zip(names, texts, strict=True)):
            left = _PAD + column * (width + _PAD)
            kind = ' class="lean"' if f"lsx.{name}" in lean else ""
            shapes.append(f'<rect{kind} x="{left:.0f}" y="{top}" width="{width:.0f}" height="{height}" rx="5"/>')
            shapes.append(
                f'<text class="b" x="{left + 8:.0f}" y="{top + 17}">{name} <tspan class="s">{_hundreds(lines[name])}'
                "</tspan></text>"
            )
            shapes += [
                f'<text class="s" x="{left + 8:.0f}" y="{top + 32 + 14 * i}">{escape(line)}</text>'
                for i, line in enumerate(text)
            ]
        top += height + _PAD
    return _svg(top, shapes, "The rooms of lsx from top to bottom; under each name, the rooms that it imports")


def frame() -> str:
    """The stages of FramePipeline, in order, with what each does."""
    return _way([(name, said) for name, said in _stages()], "The stages of a run, in order")


def plan() -> str:
    """The functions that a plan goes through."""
    steps = []
    for where in PLAN:
        module, _, name = where.partition(":")
        found: object = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        said = _first_line(found.__doc__)
        steps.append((f"{module.removeprefix('lsx.')}.{name}", said))
    return _way(steps, "What a plan goes through, in order")


def _stages() -> list[tuple[str, str]]:
    """Name and docstring of every stage, read from the two lists in frame_pipeline.py."""
    tree = ast.parse((ROOT / "lsx" / "runtime" / "frame_pipeline.py").read_text())
    docs = {}
    for file in ("frame_pipeline", "face_aligner", "chunker"):
        for node in ast.walk(ast.parse((ROOT / "lsx" / "runtime" / f"{file}.py").read_text())):
            if isinstance(node, ast.FunctionDef):
                docs[node.name] = _first_line(ast.get_docstring(node))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Stage":
            name, work = node.args[:2]
            called = next((n.attr for n in ast.walk(work) if isinstance(n, ast.Attribute)), "")
            assert isinstance(name, ast.Constant)  # noqa: S101  (a drawing of what is not there must not be made)
            found.append((node.lineno, str(name.value), docs.get(called, "")))
    return [(name, said) for _, name, said in sorted(found)]


def _imports() -> tuple[dict[str, set[str]], dict[str, int]]:
    """The rooms that each room imports, and the lines of each."""
    imports: dict[str, set[str]] = defaultdict(set)
    lines: dict[str, int] = defaultdict(int)
    for path in sorted((ROOT / "lsx").rglob("*.py")):
        parts = path.relative_to(ROOT / "lsx").parts
        room = parts[0].removesuffix(".py")
        text = path.read_text()
        lines[room] += len(text.splitlines())
        for node in ast.walk(ast.parse(text)):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                if name.startswith("lsx.") and name.split(".")[1] != room:
                    imports[room].add(name.split(".")[1])
    return imports, lines


def _way(steps: list[tuple[str, str]], label: str) -> str:
    shapes, top = [], _PAD
    for number, (name, said) in enumerate(steps):
        if number:
            shapes.append(f'<path d="M{_WIDTH / 2} {top - 14} v14"/>')
        shapes.append(f'<rect x="{_PAD}" y="{top}" width="{_WIDTH - 2 * _PAD}" height="42" rx="5"/>')
        shapes.append(f'<text class="b" x="20" y="{top + 17}">{number + 1}. {escape(name)}</text>')
        shapes.append(f'<text class="s" x="20" y="{top + 33}">{escape(said[:110])}</text>')
        top += 56
    return _svg(top, shapes, label)


def _svg(height: float, shapes: list[str], label: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}" role="img" '
        f'aria-label="{escape(label)}">\n{_STYLE}\n' + "\n".join(shapes) + "\n</svg>\n"
    )


def _first_line(doc: str | None) -> str:
    return (doc or "").strip().split("\n")[0]


def _wrapped(text: str, width: int) -> list[str]:
    rows = [""]
    for word in text.split(" "):
        if len(rows[-1]) + len(word) > width:
            rows.append("")
        rows[-1] += word + " "
    return [row.strip() for row in rows]


def _hundreds(lines: int) -> str:
    """Round to hundreds: the drawing shall not change with every line."""
    return f"{max(round(lines / 100), 1) * 100} lines"


def main() -> int:
    """Write the drawings, or compare them."""
    drawings = {"rooms.svg": rooms(), "frame.svg": frame(), "plan.svg": plan()}
    if "--check" in sys.argv[1:]:
        old = [n for n, text in drawings.items() if not (IMAGES / n).is_file() or (IMAGES / n).read_text() != text]
        if old:
            print(f"not what the code gives: {', '.join(old)}. Draw them again: python scripts/architecture.py")
        return 1 if old else 0
    IMAGES.mkdir(parents=True, exist_ok=True)
    for name, text in drawings.items():
        (IMAGES / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
