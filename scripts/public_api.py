"""The public API as lines: python scripts/public_api.py > docs/api-VERSION.txt when a version is tagged.

A test compares the last one with the code: names and parameters may come, but not go.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any

import lsx

__all__ = ["lines"]


def lines() -> list[str]:
    """`name(parameter, parameter=)` of every public callable, `name` of the rest; `=` marks what may be left out."""
    return sorted(_lines())


def _lines() -> Iterator[str]:
    for name in lsx.__all__:
        found = getattr(lsx, name)
        if isinstance(found, str):
            yield name
            continue
        if not inspect.isclass(found) or dataclasses.is_dataclass(found):
            yield f"{name}({_parameters(found)})"
        else:
            yield name
        if inspect.isclass(found):
            for attribute, member in vars(found).items():
                function = getattr(member, "__func__", member)
                if attribute.startswith("_"):
                    continue
                if inspect.isfunction(function):
                    yield f"{name}.{attribute}({_parameters(function)})"
                elif isinstance(member, property):
                    yield f"{name}.{attribute}"


def _parameters(found: Any) -> str:
    """The parameters, and for ** keywords the names that they may have."""
    shown = []
    for parameter in inspect.signature(found).parameters.values():
        if parameter.name in ("self", "cls"):
            continue
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            shown += _keywords(found, str(parameter.annotation))
        elif parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            shown.append("*")
        else:
            shown.append(parameter.name + ("" if parameter.default is parameter.empty else "="))
    return ", ".join(shown)


def _keywords(found: Any, annotation: str) -> list[str]:
    """The names in a TypedDict that ** is unpacked from; ** where it is none."""
    kind = found.__globals__.get(annotation.removeprefix("Unpack[").removesuffix("]"))
    return ["**"] if kind is None else [f"{name}=" for name in sorted(kind.__annotations__)]


if __name__ == "__main__":
    print("\n".join(lines()))
