"""Every public callable has a docstring and an example in it, and every example gives what it says."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import lsx
from examples.synthetic_clip import portrait_frames, speech, write_clip, write_wav
from lsx.bundle.bundle import Bundle
from lsx.core.tensors import Precision

FLAGS = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL | doctest.NORMALIZE_WHITESPACE


def _public() -> Iterator[tuple[str, Any]]:
    """Names and objects: what `lsx` exports but for errors, and the methods and properties of its classes."""
    for name in lsx.__all__:
        found = getattr(lsx, name)
        if isinstance(found, str) or (inspect.isclass(found) and issubclass(found, Exception)):
            continue
        yield name, found
        if inspect.isclass(found):
            for attribute, member in vars(found).items():
                target = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
                if not attribute.startswith("_") and inspect.isfunction(target):
                    yield f"{name}.{attribute}", target


PUBLIC = dict(_public())


@pytest.mark.parametrize("name", PUBLIC)
def test_it_is_documented(name: str) -> None:
    doc = inspect.getdoc(PUBLIC[name])
    assert doc
    assert ">>> " in doc or name in PLAIN, f"{name} has no example"


PLAIN = {
    "EncodeOptions.check",
    "EncodeOptions.encoder_name",
    "EncodeOptions.video_codec",
    "SamplingOptions.guidance_batch",
}
PLAIN |= {"RunReport.faceless_spans", "RunReport.repeated_calls"}
PLAIN |= {"SoundReader.frames", "SoundReader.packets", "SoundReader.stream"}
"""Members that a class's own example shows, or that lsx itself asks."""


@pytest.mark.parametrize("name", [name for name, found in PUBLIC.items() if ">>> " in (found.__doc__ or "")])
def test_its_example(
    name: str,
    bundle: Callable[[Precision, int], Bundle],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {
        "BUNDLE": str(bundle("fp32", 64).path),
        "VIDEO": str(write_clip(tmp_path / "video.mp4", portrait_frames(16))),
        "AUDIO": str(write_wav(tmp_path / "speech.wav", speech(16 / 25))),
    }
    source = inspect.getdoc(PUBLIC[name]) or ""
    names = {n: getattr(lsx, n) for n in lsx.__all__} | given
    example = doctest.DocTestParser().get_doctest(source, names, name, None, None)
    said: list[str] = []
    failed = doctest.DocTestRunner(optionflags=FLAGS).run(example, out=said.append).failed
    assert not failed, "".join(said)
