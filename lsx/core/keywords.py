"""Options as keywords: the common ones may be given by name where a whole options object is taken."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from difflib import get_close_matches
from fractions import Fraction
from functools import wraps
from numbers import Integral, Real
from os import PathLike
from typing import Any, ParamSpec, TypeVar

from pydantic import BaseModel

from lsx.errors import UsageError

__all__ = [
    "check_callable",
    "check_kind",
    "check_path",
    "check_whole",
    "named_alone",
    "options_of",
    "parameters_of",
    "plain_number",
    "split_keywords",
]

_T = TypeVar("_T")
_P = ParamSpec("_P")

_RENAMED = {"reference": "checkpoint_dir"}
"""Keywords that were called otherwise; the old ones work for one release."""
_ELSEWHERE = {
    "guidance_scale": "guidance",
    "inference_steps": "steps",
    "num_inference_steps": "steps",
    "denoising_steps": "steps",
    "enable_deepcache": "cache_interval",
}
"""What other programs call our keywords; they are no keywords here, and the message names ours."""


def options_of(
    kind: type[_T], options: _T | None, keywords: Mapping[str, Any], name: str, default: _T | None = None
) -> _T:
    """`options`, or else `default`, or a `kind` of defaults, with the fields in `keywords` replaced.

    name : the parameter's, for messages. Raises UsageError for another type, a name that `kind` does not have, and
    what `kind` itself refuses.
    """
    if options is not None and not isinstance(options, kind):
        raise UsageError(f"{name} is {options!r}; give {_a(kind)}, or keywords such as {_names(kind)[0]}=...")
    chosen, base = _current(keywords, _names(kind)), options or default or kind()
    if isinstance(base, BaseModel):
        return kind(**(dict(base) | chosen))
    return replace(base, **chosen)  # type: ignore[type-var]


def named_alone(kind: type[_T]) -> type[_T]:
    """`kind`, a class of options, which is made of names alone that it has: anything else is a UsageError.

    Its numbers may be NumPy's, and are Python's in it.
    """
    changed: Any = kind
    construct = changed.__init__

    @wraps(construct)
    def made(self: _T, *positions: Any, **values: Any) -> None:
        names = _names(kind)
        if positions:
            raise UsageError(f"{kind.__name__}({positions[0]!r}): give names, such as {names[0]}={positions[0]!r}")
        for name in values:
            if name not in names:
                raise _unknown(name, names)
        construct(self, **{name: plain_number(value) for name, value in values.items()})

    changed.__init__ = made
    return kind


def check_kind(name: str, value: object, kind: type) -> None:
    """Raise UsageError unless `value`, given as `name`, is a `kind`."""
    if not isinstance(value, kind):
        raise UsageError(f"{name} is {value!r}; give {_a(kind)}")


def check_path(name: str, value: object) -> None:
    """Raise UsageError unless `value`, given as `name`, is a path."""
    if not isinstance(value, str | PathLike):
        raise UsageError(f"{name} is of type {type(value).__name__}; give a path")


def check_whole(name: str, value: object) -> None:
    """Raise UsageError unless `value`, given as `name`, is a whole number."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise UsageError(f"{name} is {value!r}; give a whole number")


def plain_number(value: Any) -> Any:
    """Python's own number in the place of another library's, as NumPy's; anything else stays as it is."""
    if isinstance(value, bool | Fraction):
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value


def parameters_of(_method: Callable[_P, object]) -> Callable[[Callable[..., _T]], Callable[_P, _T]]:
    """Type a function that hands all it gets on to `_method` by the parameters of that; it stays as it is."""
    return lambda function: function


def check_callable(name: str, value: object) -> None:
    """Raise UsageError unless `value`, given as `name`, can be called, or is None."""
    if value is not None and not callable(value):
        raise UsageError(f"{name} is {value!r}; give a function, or leave it out")


def split_keywords(keywords: Mapping[str, Any], *kinds: type) -> list[dict[str, Any]]:
    """The keywords of each of `kinds`, in their order. Raises UsageError for one that none of them has."""
    known = [_names(kind) for kind in kinds]
    checked = _current(keywords, tuple(name for names in known for name in names))
    return [{name: value for name, value in checked.items() if name in names} for names in known]


def _a(kind: type) -> str:
    return f"{'an' if kind.__name__[0] in 'AEIOU' else 'a'} {kind.__name__}"


def _unknown(name: str, names: tuple[str, ...]) -> UsageError:
    ours = _ELSEWHERE.get(name)
    close = [ours] if ours in names else get_close_matches(name, names, 1)
    hint = f"; did you mean {close[0]}? Choose" if close else "; choose"
    return UsageError(f"there is no option {name}{hint} from {', '.join(names)}")


def _names(kind: Any) -> tuple[str, ...]:
    return tuple(kind.model_fields) if issubclass(kind, BaseModel) else tuple(field.name for field in fields(kind))


def _current(keywords: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """`keywords` by their present names."""
    current = {}
    for name, value in keywords.items():
        new = _RENAMED.get(name, name) if name not in names else name
        if new not in names:
            raise _unknown(name, names)
        if new != name:
            warnings.warn(f"{name} is now called {new}", DeprecationWarning, stacklevel=4)
        current[new] = value
    return current
