"""Keywords beside options objects: checked, close names told, old names working."""

from __future__ import annotations

import pytest

from lsx.core.keywords import options_of, split_keywords
from lsx.core.sampling import SamplingOptions
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


def test_two_kinds_are_told_apart() -> None:
    sampling, encode = split_keywords({"steps": 3, "crf": 20}, SamplingOptions, EncodeOptions)
    assert (sampling, encode) == ({"steps": 3}, {"crf": 20})
    with pytest.raises(UsageError, match="no option codecs; did you mean codec"):
        split_keywords({"codecs": "h264"}, SamplingOptions, EncodeOptions)


def test_an_old_name_warns() -> None:
    with pytest.warns(DeprecationWarning, match="reference is now called checkpoint_dir"):
        assert options_of(EngineOptions, None, {"reference": "x"}, "engine").checkpoint_dir == "x"
