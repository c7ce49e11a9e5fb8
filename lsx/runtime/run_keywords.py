"""The keywords of a run and of a stream, as type checkers see them."""

from __future__ import annotations

from lsx.core.footage import CompareLayout, FootageKeywords, Length, Mix, Segments
from lsx.core.sampling import SamplingKeywords
from lsx.media.encoding import EncodeKeywords

__all__ = ["RunKeywords", "StreamKeywords"]


class StreamKeywords(SamplingKeywords, FootageKeywords, total=False):
    """The fields of SamplingOptions and FootageOptions as keywords."""


class RunKeywords(StreamKeywords, EncodeKeywords, total=False):
    """The fields of SamplingOptions, FootageOptions and EncodeOptions as keywords."""

    length: Length | None
    compare_layout: CompareLayout
    segments: Segments
    mix: Mix
