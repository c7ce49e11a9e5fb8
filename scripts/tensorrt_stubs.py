"""Write type stubs of TensorRT-RTX's bindings, for mypy: `python scripts/tensorrt_stubs.py build/stubs`.

They are made from the installed bindings each time and not committed, because the bindings' licence is NVIDIA's. What
the generator writes is not always Python (a parameter called `in`, defaults before parameters without); that is mended.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

MODULE = "tensorrt_rtx_bindings"


def mended(line: str) -> str:
    """A stub's line as valid Python."""
    match = re.fullmatch(r"(\s*def \w+\()(.*)(\) -> .*:.*)", line)
    if match is None:
        return line
    head, parameters, tail = match.groups()
    seen_default = False
    whole = []
    for parameter in _split(parameters):
        text = re.sub(r"^in:", "in_:", parameter.strip())
        has_default = _top_level(text, "=")
        if seen_default and not has_default and not text.startswith("*"):
            text += " = ..."
        seen_default = seen_default or has_default
        whole.append(text)
    return head + ", ".join(whole) + tail


def _split(parameters: str) -> list[str]:
    parts, depth, current = [], 0, ""
    for character in parameters:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += character
    return [*parts, current] if current.strip() else parts


def _top_level(text: str, wanted: str) -> bool:
    depth = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if character == wanted and depth == 0:
            return True
    return False


def main() -> None:
    """Generate, then mend every file."""
    folder = Path(sys.argv[1])
    command = [sys.executable, "-m", "pybind11_stubgen", MODULE, "-o", str(folder), "--ignore-all-errors"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    files = sorted((folder / MODULE).glob("*.pyi"))
    if done.returncode or not files:
        sys.exit(f"no stubs of {MODULE}: {done.stderr.strip().splitlines()[-1:]}")
    for file in files:
        file.write_text("\n".join(mended(line) for line in file.read_text().splitlines()) + "\n")
    print(f"stubs: {folder / MODULE}")


if __name__ == "__main__":
    main()
