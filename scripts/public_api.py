"""The public API as griffe reads it: python scripts/public_api.py > docs/api-VERSION.json when a version is tagged.

A test compares the last one with the code: names, parameters, types and defaults may come, but not change or go.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe

ROOT = Path(__file__).parents[1]
_FOR_READERS = ("docstring", "filepath", "analysis", "runtime")  # no part of the API
_PLACES = ("lineno", "endlineno")  # neither, but griffe wants them


def public_api(root: Path = ROOT) -> griffe.Module:
    """What `lsx` exports, and the keywords that it takes, as members of one module; nothing is imported."""
    api = griffe.Module("lsx")
    for name, module in _exports(root):
        exported = _module(root, module)[name]
        for member in [m for m in exported.members if m.startswith("_")]:
            del exported.members[member]
        for attribute in exported.attributes.values():
            if "instance-attribute" in attribute.labels:
                attribute.value = None  # how it is made is nobody's business
        api.set_member(name, exported)
    return api


def breaks(old: griffe.Module, new: griffe.Module) -> list[str]:
    """What callers of `old` would miss in `new`."""
    found = [_line(one) for one in griffe.find_breaking_changes(old, new)]
    return found + list(_other_types(old, new)) + list(_new_fields(old, new))


def text_of(api: griffe.Module) -> str:
    """The content of a file in docs: JSON, a line an export."""
    members = {name: _slim(member) for name, member in api.as_dict()["members"].items()}
    lines = ",\n".join(f"{json.dumps(name)}: {_json(member)}" for name, member in sorted(members.items()))
    return f'{{"kind": "module", "name": "lsx", "members": {{\n{lines}\n}}}}\n'


def api_of(text: str) -> griffe.Module:
    """What `text_of` made that text from."""
    return griffe.Module.from_json(text)


def _exports(root: Path) -> Iterator[tuple[str, str]]:
    """(name, module) of everything public, and of the typed dictionaries of keywords."""
    lazy = _module(root, "lsx")["_LAZY"].value
    modules = dict(re.findall(r"'([\w.]+)'\s*:\s*'([\w.]+)'", str(lazy)))
    yield from modules.items()
    errors = _module(root, "lsx.errors")
    yield from ((name, "lsx.errors") for name, member in errors.members.items() if isinstance(member, griffe.Class))
    for module in sorted(set(modules.values())):
        for name, member in _module(root, module).members.items():
            if name.endswith("Keywords"):
                yield name, member.target_path.rpartition(".")[0] if isinstance(member, griffe.Alias) else module


def _module(root: Path, name: str) -> griffe.Module:
    path = root / name.replace(".", "/")
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return griffe.visit(name, filepath=path, code=path.read_text(encoding="utf-8"))


def _line(breakage: griffe.Breakage) -> str:
    path = breakage.obj.path.split(".")
    at = next((i for i, part in enumerate(path) if part[:1].isupper()), len(path) - 1)
    before, after = (" ".join(str(value).split()) for value in (breakage.old_value, breakage.new_value))
    return f"{'.'.join(path[at:])}: {breakage.kind.value}: {before} -> {after}"


def _typed(api: griffe.Object, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(name, type) of every property, parameter and result; a field's default with it."""
    for name, member in api.members.items():
        path = prefix + name
        if isinstance(member, griffe.Attribute):
            yield path, f"{member.annotation}" + ("" if member.value is None else f" = {member.value}")
        elif isinstance(member, griffe.Function):
            yield f"{path}()", str(member.returns)
            yield from ((f"{path}({p.name})", str(p.annotation)) for p in member.parameters)
        elif isinstance(member, griffe.Class):
            yield from _typed(member, f"{path}.")


def _other_types(old: griffe.Module, new: griffe.Module) -> Iterator[str]:
    """What is of another type or default now, where griffe does not look."""
    after = dict(_typed(new))
    for name, kind in _typed(old):
        if name in after and after[name] != kind and not _takes_more(name, kind, after[name], new):
            yield f"{name} is {after[name]}, not {kind}"


def _takes_more(name: str, old: str, new: str, api: griffe.Module) -> bool:
    """Whether a parameter takes all that it took: more members of a union, or more keywords."""
    if not name.endswith(")") or name.endswith("()"):
        return False
    if old.startswith("Unpack["):
        wider = api.members.get(new.removeprefix("Unpack[").removesuffix("]"))
        return isinstance(wider, griffe.Class) and old.removeprefix("Unpack[").removesuffix("]") in map(
            str, wider.bases
        )
    return set(old.split(" | ")) <= set(new.split(" | "))


def _new_fields(old: griffe.Module, new: griffe.Module) -> Iterator[str]:
    """Fields of an options class that have to be given and had not been there."""
    for name, kind in new.classes.items():
        if name not in old.members or "dataclass" not in str([d.value for d in kind.decorators]):
            continue
        for field, attribute in kind.attributes.items():
            if field not in old[name].members and not attribute.labels & {"class-attribute", "property"}:
                yield f"{name} now requires {field}"


def _slim(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: None if key in _PLACES else _slim(value) for key, value in node.items() if key not in _FOR_READERS}
    return [_slim(inner) for inner in node] if isinstance(node, list) else node


def _json(member: Any) -> str:
    encoder = griffe.JSONEncoder(sort_keys=True, separators=(",", ":"))
    return encoder.encode(member)


if __name__ == "__main__":
    print(text_of(public_api()), end="")
