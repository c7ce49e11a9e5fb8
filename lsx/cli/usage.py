"""What the parser refuses, on one line: with the names that may have been meant, and the help that tells of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

__all__ = ["close_names", "usage_message"]


def close_names(typed: str, known: Iterable[str]) -> list[str]:
    """The flags of `known`, two at most, that `typed` can mean: those that it begins, else those spelt nearly so."""
    names = sorted(name.removeprefix("--") for name in known)
    word = typed.lstrip("-")
    begun = [name for name in names if name.startswith(word)]
    close = begun if 0 < len(begun) <= 2 else get_close_matches(word, names, 2, 0.7)
    return [f"--{name}" for name in close]


def usage_message(error: Exception, root: Any, arguments: Sequence[str]) -> str | None:
    """One line for an error of the parser's own; None for any other error.

    root : the program's command; arguments : what was typed after its name.
    """
    show = getattr(error, "format_message", None)
    if show is None:
        return None
    context = getattr(error, "ctx", None)
    command, path = _command_of(root, arguments)
    if context is not None:
        command, path = context.command, context.command_path
    text = show()
    typed = getattr(error, "option_name", None)
    if typed is not None and hasattr(error, "possibilities"):  # the parser's own guesses are far off
        close = close_names(typed, _flags(command))
        text = f"No such option: {typed}" + (f". Did you mean {' or '.join(close)}?" if close else "")
    return " ".join(f"{text.rstrip('.')}{'' if text.endswith('?') else '.'} See: {path} --help".split())


def _command_of(root: Any, arguments: Sequence[str]) -> tuple[Any, str]:
    """The command that was typed, as far as there is one, and its name with the program's."""
    command, path = root, "lsx"
    for argument in arguments:
        inner = getattr(command, "commands", {}).get(argument)
        if inner is not None:
            command, path = inner, f"{path} {argument}"
        elif not argument.startswith("-"):
            break
    return command, path


def _flags(command: Any) -> list[str]:
    """A command's own, in full."""
    names = [name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)]
    return [name for name in (*names, "--help") if name.startswith("--")]
