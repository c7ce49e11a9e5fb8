"""A plan's layers from the builder's log: what is read, what moves, what became of norms and attentions."""

from __future__ import annotations

import pytest

from lsx.engines.tensorrt.layer_table import LayerTable, PlanLayer, PlanTensor, layers_in_log, read_table
from lsx.errors import IntegrityError


def told(name: str, inputs: str, outputs: str, *, kind: str = "kgen", nodes: str = "") -> str:
    """A line of the log, in TensorRT's form."""
    metadata = f", Metadata: {nodes}" if nodes else ""
    return (
        f"Name: {name}, LayerType: {kind}, Inputs: [{inputs}], Outputs: [{outputs}], "
        f"TacticName: t0, StreamId: 0{metadata}"
    )


def tensor(name: str, shape: str, dtype: str = "Half") -> str:
    return f"{{ Name: {name}, Dimensions: [{shape}], Format/Datatype: {dtype} }}"


def layer(name: str, nodes: tuple[str, ...], *, kind: str = "kgen") -> PlanLayer:
    one = PlanTensor("x", (2,), "Half")
    return PlanLayer(name, kind, "t", nodes, (one,), (), (one,))


def test_a_line_is_read() -> None:
    log = ["noise", told("norm", tensor("x", "2,8"), tensor("y", "2,8", "Float"), nodes="[ONNX Layer: n0]")]
    (found,) = layers_in_log(log)
    assert (found.name, found.kind, found.nodes) == ("norm", "kgen", ("n0",))
    assert found.inputs == (PlanTensor("x", (2, 8), "Half"),)
    assert found.precision == "Float"
    assert found.moved == 2 * 8 * 2 + 2 * 8 * 4


def test_views_of_one_tensor_count_up_to_the_whole() -> None:
    """Attention reads q, k and v as parts of one tensor; two halves are the whole, three thirds no more than it."""
    log = [
        told("project", tensor("x", "4"), tensor("qkv", "30")),
        told("attend", ", ".join([tensor("qkv", "20")] * 3), tensor("y", "10")),
        told("part", tensor("qkv", "10"), tensor("z", "10")),
    ]
    assert [one.moved for one in layers_in_log(log)] == [2 * (4 + 30), 2 * (30 + 10), 2 * (10 + 10)]


def test_lengths_that_vary_are_told() -> None:
    fixed, varying = (LayerTable(layers_in_log([told("a", "", tensor("y", s))]), {}) for s in ("2,3", "-1,3"))
    assert (fixed.varying, varying.varying) == (False, True)
    assert varying.moved == 3 * 2


def test_fusions() -> None:
    kinds = {"n0": "NORMALIZATION", "n1": "NORMALIZATION", "n2": "NORMALIZATION", "a0": "ATTENTION", "a1": "ATTENTION"}
    table = LayerTable(
        (
            layer("alone", ("n0",)),
            layer("fused", ("n1", "conv")),
            layer("mean", ("n2",)),
            layer("scale", ("n2",)),
            layer("mha", ("a0",)),
            layer("__myl_Tran_7", ("a0",)),  # tokens laid out anew: no part of the attention's computing
            layer("scores", ("a1",)),
            layer("weighted", ("a1",)),
            layer("wait", ("n0",), kind="wait"),
        ),
        kinds,
    )
    found = table.fusions()
    assert (found.norms, found.norms_alone, found.norms_with_neighbours, found.norms_apart) == (3, 1, 1, 1)
    assert (found.attentions, found.attentions_in_one) == (2, 1)


def test_a_file_gives_the_table_back() -> None:
    table = LayerTable(
        layers_in_log([told("a", tensor("x", "4"), tensor("y", "4", "FP8"), nodes="[ONNX Layer: n]")]), {}
    )
    assert read_table(table.packed()) == table
    assert table.packed() == table.packed()


@pytest.mark.parametrize("content", [b"", b"damaged", LayerTable((), {}).packed()[:-9]])
def test_a_damaged_file_is_told(content: bytes) -> None:
    with pytest.raises(IntegrityError, match="layer table is damaged"):
        read_table(content)
