"""Keywords beside options objects: checked, close names told, old names working."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lsx.cli import aliases
from lsx.core.footage import FootageOptions
from lsx.core.keywords import options_of, split_keywords
from lsx.core.sampling import SamplingOptions
from lsx.core.segments import Segment
from lsx.engines.registry import EngineOptions
from lsx.errors import UsageError
from lsx.media.encoding import EncodeOptions


def test_a_keyword_goes_before_the_object() -> None:
    given = SamplingOptions(steps=7, seed=3)
    assert options_of(SamplingOptions, given, {"steps": 4}, "sampling") == SamplingOptions(steps=4, seed=3)
    assert options_of(SamplingOptions, None, {}, "sampling") == SamplingOptions()


def test_what_is_refused() -> None:
    with pytest.raises(UsageError, match="sampling is 20; give a SamplingOptions, or keywords such as steps="):
        options_of(SamplingOptions, 20, {}, "sampling")
    with pytest.raises(UsageError, match="no option thread; did you mean threads"):
        options_of(EngineOptions, None, {"thread": 2}, "engine")
    with pytest.raises(UsageError, match="steps is 0"):
        options_of(SamplingOptions, None, {"steps": 0}, "sampling")


@pytest.mark.parametrize("kind", [SamplingOptions, EncodeOptions, EngineOptions, FootageOptions, Segment])
def test_options_are_made_of_their_own_names(kind: Any) -> None:
    with pytest.raises(UsageError, match=rf"^{kind.__name__}\(3\): give names, such as \w+=3$"):
        kind(3)
    with pytest.raises(UsageError, match=r"^there is no option foo; choose from "):
        kind(foo=3)


def test_a_close_name_is_told_and_a_signature_stays() -> None:
    with pytest.raises(UsageError, match=r"^there is no option step; did you mean steps. Choose from steps, guidance"):
        SamplingOptions(step=3)  # type: ignore[call-arg]
    assert str(inspect.signature(SamplingOptions).parameters["steps"]) == "steps: 'int' = 20"
    assert replace(SamplingOptions(steps=3), seed=2) == SamplingOptions(steps=3, seed=2)


@pytest.mark.parametrize("flag", aliases._SAMPLING)
def test_what_other_programs_call_it_is_told(flag: str) -> None:
    """The command line takes these; a call, whose names a type checker knows, is told ours."""
    name, ours = flag.lstrip("-").replace("-", "_"), aliases._SAMPLING[flag].partition("=")[0].lstrip("-")
    with pytest.raises(UsageError, match=f"^there is no option {name}; did you mean {ours.replace('-', '_')}. Choose"):
        split_keywords({name: 3}, SamplingOptions, EncodeOptions)


def test_numbers_may_be_those_of_numpy() -> None:
    sampling = SamplingOptions(steps=np.int64(4), guidance=np.float32(1.5), seed=np.uint8(3))  # type: ignore[arg-type]
    assert sampling == SamplingOptions(steps=4, guidance=1.5, seed=3)
    assert {type(value) for value in (sampling.steps, sampling.seed)} == {int}
    assert type(sampling.guidance) is float
    assert FootageOptions(overlap=np.int64(2), start=np.float32(0.5), fps=np.int64(30)).fps == 30
    assert EncodeOptions(crf=np.int32(20)).crf == 20  # type: ignore[arg-type]
    assert EngineOptions(threads=np.int64(2)).threads == 2  # type: ignore[arg-type]
    wrong: dict[str, Any]
    for wrong in ({"steps": True}, {"steps": np.float64(4)}, {"guidance": True}, {"steps": np.True_}):
        with pytest.raises(UsageError, match=f"^{next(iter(wrong))} is"):
            options_of(SamplingOptions, None, wrong, "sampling")


def test_words_that_are_none() -> None:
    for name in ("codec", "encoder", "preset", "pix_fmt", "audio_codec"):
        wrong: Any
        for wrong in ([], 3):
            with pytest.raises(UsageError, match=f"^{name} is .*; give a name of FFmpeg's$"):
                options_of(EncodeOptions, None, {name: wrong}, "encode")


def test_two_kinds_are_told_apart() -> None:
    sampling, encode = split_keywords({"steps": 3, "crf": 20}, SamplingOptions, EncodeOptions)
    assert (sampling, encode) == ({"steps": 3}, {"crf": 20})
    with pytest.raises(UsageError, match="no option codecs; did you mean codec"):
        split_keywords({"codecs": "h264"}, SamplingOptions, EncodeOptions)


def test_an_old_name_warns() -> None:
    with pytest.warns(DeprecationWarning, match="reference is now called checkpoint_dir"):
        assert options_of(EngineOptions, None, {"reference": "x"}, "engine").checkpoint_dir == "x"
