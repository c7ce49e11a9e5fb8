"""Docstrings begin with what they name or do, not in the midst of a sentence: `Of the file` says nothing by itself."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import lsx

ROOT = Path(lsx.__file__).parent
OTHERS = ("serving",)  # rooms that are not there yet
MIDST = re.compile(
    r"(of|in|to|for|from|with|by|at|on|as|into|between|after|before|beside|behind|under|over|without|through|among|within"
    r"|against|during|per|about|above|below|across|along|around|beyond|inside|outside|upon|via|than"
    r"|which|who|whose|whom|where|when|that|those|these|until|while|since|if|because)\b",
    re.IGNORECASE,
)
"""Prepositions and relative words. What a thing is, whether it is and how it is done may well be asked first."""

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def _text(node: ast.AST) -> str | None:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return node.value.value.strip()
    return None


def _name(node: ast.AST) -> str | None:
    """The name of what a docstring after it is of."""
    target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
    return target.id if isinstance(target, ast.Name) else getattr(target, "attr", None)


def _docstrings(node: Documented) -> Iterator[str]:
    """Those of the public names in a module, class or function, its own first."""
    first = _text(node.body[0])
    if first is not None:
        yield first
    for before, after in pairwise(node.body):
        text, name = _text(after), _name(before)
        if text is not None and name is not None and not name.startswith("_"):
            yield text
    for inner in node.body:
        if isinstance(inner, Documented) and (not inner.name.startswith("_") or inner.name == "__init__"):
            yield from _docstrings(inner)


def test_docstrings_do_not_begin_in_the_midst_of_a_sentence() -> None:
    files = [path for path in sorted(ROOT.rglob("*.py")) if path.relative_to(ROOT).parts[0] not in OTHERS]
    found = [
        f"{path.relative_to(ROOT)}: {text[:80]}"
        for path in files
        for text in _docstrings(ast.parse(path.read_text(encoding="utf-8")))
        if MIDST.match(text)
    ]
    assert found == []


def test_what_is_looked_at() -> None:
    code = '''"""Of it."""
class Job:
    """Where."""
    line: int
    """Of the file."""
    _own: int
    """By whom."""
    def __init__(self):
        """To."""
        self.path = 3
        """In the folder."""
'''
    assert [*_docstrings(ast.parse(code))] == ["Of it.", "Where.", "Of the file.", "To.", "In the folder."]
