"""Modules to ONNX models: tracing without the exporter's slow rewriter, cleaning, a free batch axis."""

from __future__ import annotations

import contextlib
import functools
import gc
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
import torch
from numpy.typing import NDArray
from onnxscript import optimizer
from torch import Tensor, nn

from lsx.export.onnx_file import OPSET
from lsx.export.trace_cache import TraceCache, fingerprint

__all__ = ["free_leading_axis", "trace"]

_LONGEST = 32  # of an axis that varies; diffusers branches at 64 images, which is 32 frames twice


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter reports its progress and absent optional libraries to stdout and the log; none of it is news."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _brisk() -> Iterator[None]:
    """Half of a graph's tracing left out: torch traces it a second time to take operators apart of which ours has none,
    fills its table of operators anew for each graph, keeps for each node the lines of Python that it came from, and
    Python looks for cycles among millions of live nodes.

    Where another torch has these things elsewhere, it does them as it does.
    """
    collected = gc.isenabled()
    gc.disable()
    try:
        with contextlib.ExitStack() as patched:
            try:
                from torch.onnx._internal.exporter import _decomp, _fx_passes
                from torch.onnx._internal.exporter._registration import ONNXRegistry

                filled = functools.partial(_operators, ONNXRegistry.from_torchlib)
                lowered = functools.partial(
                    _lowered, _fx_passes.decompose_with_registry, _decomp.get_onnx_implemented_overloads
                )
                patched.enter_context(mock.patch.object(ONNXRegistry, "from_torchlib", staticmethod(filled)))
                patched.enter_context(mock.patch.object(_fx_passes, "decompose_with_registry", lowered))
                patched.enter_context(mock.patch.object(torch.fx.config, "do_not_emit_stack_traces", True))
            except (ImportError, AttributeError):
                pass
            yield
    finally:
        if collected:
            gc.enable()


@functools.cache
def _operators(fill: Any, **options: Any) -> Any:
    """What `fill` gives, once for each of its options."""
    return fill(**options)


def _lowered(decompose: Any, implemented: Any, program: torch.export.ExportedProgram, registry: Any) -> Any:
    """The program in operators that ONNX has: as it is but for its casts, or by `decompose` where that is not enough.

    implemented : gives the operators that a registry translates.
    """
    aten, graph = torch.ops.aten, program.graph_module.graph
    known = {*implemented(registry), aten.to.dtype, aten._assert_tensor_metadata.default}
    calls = [node for node in graph.nodes if node.op == "call_function"]
    if any(node.target not in known or _writes(node.target) for node in calls):
        return decompose(program, registry)
    for node in calls:
        if node.target is not aten.to.dtype:
            continue
        source, dtype = node.args[:2]
        if source.meta["val"].dtype == dtype and all(user.op != "output" for user in node.users):
            node.replace_all_uses_with(source)
            graph.erase_node(node)
        else:
            node.target, node.args, node.kwargs = aten._to_copy.default, (source,), {"dtype": dtype}
    program.graph_module.recompile()
    return program


def _writes(operator: Any) -> bool:
    """Whether an operator changes what it is given."""
    schema = getattr(operator, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


def trace(
    module: nn.Module,
    arguments: Sequence[Tensor],
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic: Sequence[dict[int, str] | None] | None = None,
) -> ir.Model:
    """`module` as an ONNX model: traced by torch.export, translated, constants folded, metadata stripped.

    dynamic : for each argument, the axes that vary and their names. The exporter's own optimiser is left out: its
    rewrite rules take minutes on the U-Net and change nothing that a backend would not do itself.
    """
    kept, key = TraceCache(), fingerprint(module, arguments, inputs, outputs, dynamic)
    model = kept.get(key, module)
    if model is None:
        model = _traced(module, arguments, inputs, outputs, dynamic)
        kept.put(key, model, module)
    with _quiet():
        optimizer.fold_constants(model)
    _name_axes(model, dynamic or ())
    _say_lengths(model)
    _fold_cast_like(model)
    _clean(model)
    if dynamic is not None:
        _forget_shapes(model)
    return model


def _traced(
    module: nn.Module,
    arguments: Sequence[Tensor],
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic: Sequence[dict[int, str] | None] | None,
) -> ir.Model:
    """What torch.export and its translation to ONNX make of `module`, its weights as they are."""
    axes = {name: torch.export.Dim(name, min=1, max=_LONGEST) for d in dynamic or () if d for name in d.values()}
    shapes = None if dynamic is None else tuple({i: axes[n] for i, n in (d or {}).items()} for d in dynamic)
    with _quiet(), _brisk(), torch.no_grad():
        program = torch.export.export(module, tuple(arguments), dynamic_shapes=shapes, strict=False)
        translated = torch.onnx.export(
            program,
            dynamo=True,
            optimize=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            verbose=False,
        )
    if translated is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    model: ir.Model = translated.model
    passes.ClearMetadataAndDocStringPass()(model)
    return model


def _clean(model: ir.Model) -> None:
    """Leave out what computes nothing, and have every constant once, as an initializer."""
    for step in (
        passes.IdentityEliminationPass(),
        passes.DeduplicateInitializersPass(size_limit=1),  # scales of one tensor: its Q/DQ pairs become one
        passes.CommonSubexpressionEliminationPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.RemoveUnusedNodesPass(),
        passes.RemoveUnusedFunctionsPass(),
        passes.RemoveUnusedOpsetsPass(),
        passes.ClearMetadataAndDocStringPass(),  # what was folded has new ones
    ):
        step(model)


def _name_axes(model: ir.Model, dynamic: Sequence[dict[int, str] | None]) -> None:
    """Give the axes that vary their names again: the exporter leaves torch's symbols in their place."""
    names: dict[str, str] = {}
    for value, axes in zip(model.graph.inputs, dynamic, strict=False):
        for position, name in (axes or {}).items():
            if value.shape is not None:
                names[str(value.shape[position])] = name
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.shape is not None:
            value.shape = ir.Shape([n if isinstance(n, int) else names[str(n)] for n in value.shape])


def _say_lengths(model: ir.Model) -> None:
    """Every length of a Reshape's result where it is known, in place of one that is inferred or taken over."""
    for node in model.graph:
        if node.op_type != "Reshape" or node.inputs[1] is None or node.inputs[1].const_value is None:
            continue
        result = node.outputs[0].shape
        if result is None or not result.is_static() or (node.inputs[1].const_value.numpy() > 0).all():
            continue
        lengths = np.array(result.numpy(), dtype=np.int64)
        node.replace_input_with(1, _lengths(model, f"{node.outputs[0].name}_lengths", lengths))
        node.attributes["allowzero"] = ir.AttrInt64("allowzero", 1)


def _lengths(model: ir.Model, name: str, lengths: NDArray[np.int64]) -> ir.Value:
    """A Reshape's lengths as a constant of the graph."""
    value = ir.Value(name=name, const_value=ir.tensor(lengths))
    value.dtype, value.shape = ir.DataType.INT64, ir.Shape(lengths.shape)
    model.graph.register_initializer(value)
    return value


def _fold_cast_like(model: ir.Model) -> None:
    """CastLike of a constant to the constant cast: its type is known here, and TensorRT reads constants alone."""
    if all(node.op_type != "CastLike" for node in model.graph):
        return
    passes.RemoveUnusedNodesPass()(model)  # chunks leave sequences behind, for which bfloat16 has no shape inference
    passes.ShapeInferencePass()(model)
    for node in model.graph:
        if node.op_type != "CastLike":
            continue
        value, like = node.inputs
        if value is None or like is None:
            continue
        dtype = like.dtype or node.outputs[0].dtype
        if dtype is None:
            raise RuntimeError(f"{node.name}: CastLike of an unknown type")
        cast = ir.node("Cast", [value], attributes={"to": int(dtype)})
        cast.outputs[0].name = f"{node.outputs[0].name}_cast"
        cast.outputs[0].dtype = dtype
        model.graph.insert_before(node, cast)
        node.outputs[0].replace_all_uses_with(cast.outputs[0])
        model.graph.remove(node, safe=True)
    optimizer.fold_constants(model)


def _forget_shapes(model: ir.Model) -> None:
    """Forget the inferred shapes of intermediate values: they are inferred again where they matter."""
    for node in model.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None


def free_leading_axis(model: ir.Model, axis: str, tensors: Mapping[str, int]) -> None:
    """Make an axis vary in a model traced with a fixed one. tensors : where it is in each I/O tensor that has it.

    Valid where inside the graph that axis is the leading factor of every tensor's first axis, as the batch is in the
    U-Net and the frames in the VAE: then each Reshape may infer its first length; one that takes it over from its input
    stays as it is. It keeps the graph free of the shape
    arithmetic that tracing with a symbolic axis leaves in it.
    """
    for node in model.graph:
        if node.op_type != "Reshape":
            continue
        shape = node.inputs[1]
        constant = None if shape is None else shape.const_value
        if shape is None or constant is None:
            raise RuntimeError(f"{node.name}: a Reshape to a computed shape, in a graph with fixed ones")
        lengths = constant.numpy().copy()
        if lengths[0] in (-1, 0):  # inferred, or taken over from the input
            continue
        if (lengths == -1).any():  # another axis is inferred: say what it is instead
            known = node.outputs[0].shape
            if known is None or not known.is_static():
                raise RuntimeError(f"{node.name}: a Reshape to {lengths.tolist()} whose result is of unknown shape")
            lengths = np.array(known.numpy(), dtype=np.int64)
        lengths[0] = -1
        node.replace_input_with(1, _lengths(model, f"{node.outputs[0].name}_shape", lengths))
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.name is not None and value.name in tensors and value.shape is not None:
            lengths_of: list[Any] = list(value.shape)
            lengths_of[tensors[value.name]] = axis
            value.shape = ir.Shape(lengths_of)
    passes.RemoveUnusedNodesPass()(model)
    _forget_shapes(model)
