"""Engine.infer: what is checked and cast before a graph runs."""

from __future__ import annotations

import numpy as np
import pytest

from lsx.core.tensors import TensorSpec
from lsx.engines.engine import Array, Engine, FeedDict
from lsx.errors import EngineError


class _Sum(Engine):
    def __init__(self) -> None:
        a = TensorSpec(name="a", dtype="float16", shape=("b", 3))
        c = TensorSpec(name="c", dtype="uint8", shape=("b", 3))
        super().__init__("sum", [a, c], [TensorSpec(name="total", dtype="float16", shape=("b", 3))])

    description = "toy"

    def run(self, feed_dict: FeedDict) -> dict[str, Array]:
        assert feed_dict["a"].dtype == np.float16
        assert feed_dict["a"].flags.c_contiguous
        return {"total": feed_dict["a"] + feed_dict["c"].astype(np.float16)}

    def close(self) -> None:
        return None


def test_floats_are_cast_both_ways() -> None:
    with _Sum() as engine:
        made = engine.infer({"a": np.ones((3, 2), np.float32).T, "c": np.full((2, 3), 4, np.uint8)})
    assert made["total"].dtype == np.float32
    assert np.array_equal(made["total"], np.full((2, 3), 5))
    assert engine.bytes_moved() is None


@pytest.mark.parametrize(
    ("feed", "said"),
    [
        ({}, "takes a, c; given nothing"),
        ({"a": np.ones((2, 3)), "b": np.ones(3)}, "takes a, c; given a, b"),
        ({"a": np.ones((2, 4)), "c": np.ones((2, 3), np.uint8)}, r"a is \[2, 4\]"),
        ({"a": np.ones((2, 3)), "c": np.ones((1, 3), np.uint8)}, r"c is \[1, 3\]"),  # axis b is 2 already
        ({"a": np.ones((2, 3)), "c": np.ones((2, 3))}, "c is float64"),
    ],
)
def test_what_does_not_fit_is_named(feed: dict[str, np.ndarray], said: str) -> None:
    with pytest.raises(EngineError, match=said):
        _Sum().infer(feed)


def test_numpy_has_no_bfloat16() -> None:
    with pytest.raises(EngineError, match="bfloat16, which NumPy does not have"):
        _Sum().numpy_dtype(TensorSpec(name="x", dtype="bfloat16", shape=(1,)))
