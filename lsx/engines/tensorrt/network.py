"""A bundle's graph as a TensorRT network: parsed, shapes fixed or given profiles; the builder's log and progress."""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsx.bundle.bundle import Bundle
from lsx.bundle.manifest import GraphEntry, ProfileEntry
from lsx.engines.tensorrt.libraries import Library
from lsx.errors import BuildError, LsxError, UsageError

if TYPE_CHECKING:
    import tensorrt_rtx_bindings as trt

__all__ = ["collecting_logger", "network_from_file", "network_from_graph", "progress_monitor", "set_shapes", "with_log"]

_KEPT_LINES = 50  # of the log, for a failure


def network_from_graph(
    library: Library, builder: trt.Builder, logger: trt.ILogger, bundle: Bundle, graph: str
) -> tuple[trt.INetworkDefinition, trt.OnnxParser]:
    """A bundle's graph as a TensorRT network; parser and errors as in `network_from_file`."""
    return network_from_file(library, builder, logger, bundle.path / bundle.graph(graph).file.path, graph)


def network_from_file(
    library: Library, builder: trt.Builder, logger: trt.ILogger, path: Path, graph: str
) -> tuple[trt.INetworkDefinition, trt.OnnxParser]:
    """An ONNX file as a TensorRT network. The parser owns the weights: keep it as long as the network.

    Raises BuildError naming node, operator and reason of the first node that the parser does not take.
    """
    if TYPE_CHECKING:
        import tensorrt_rtx_bindings as trt
    else:
        trt = library.module()
    network = builder.create_network(library.network_flags())
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(path)):
        raise with_log(BuildError(_parser_failure(library, graph, parser)), logger)
    attention = trt.LayerType.__members__.get("ATTENTION_INPUT")  # from 10.14 on; before, the parser does not take it
    for index in range(network.num_layers):
        layer: Any = network.get_layer(index)
        if attention is not None and layer.type == attention:
            # Fused where there is a kernel for it, taken apart where not: without this, such a build fails.
            layer.__class__ = trt.IAttentionInputLayer
            layer.attention.decomposable = True
    return network, parser


def _parser_failure(library: Library, graph: str, parser: trt.OnnxParser) -> str:
    if not parser.num_errors:
        return f"{graph}: {library.backend} {library.version} does not parse it, and gives no reason"
    first = parser.get_error(0)
    return (
        f"{graph}: {library.backend} {library.version} does not take node {first.node_name() or first.node()} "
        f"({first.node_operator() or 'unknown operator'}): {first.desc()}. Upgrade the library (pip install -U "
        f"'lsx[{library.extra}]'), or run this graph on onnxruntime"
    )


def set_shapes(
    library: Library,
    builder: trt.Builder,
    network: trt.INetworkDefinition,
    config: trt.IBuilderConfig,
    entry: GraphEntry,
    profiles: tuple[ProfileEntry, ...],
) -> None:
    """Fix the inputs' shapes where there is one profile of one length; otherwise add the profiles."""
    if TYPE_CHECKING:
        import tensorrt_rtx_bindings as trt
    else:
        trt = library.module()

    def dims(tensor: str, lengths: Mapping[str, int]) -> trt.Dims:
        return trt.Dims(list(inputs[tensor].shape_at(lengths)))

    inputs = {tensor.name: tensor.spec() for tensor in entry.inputs}
    named = [network.get_input(index) for index in range(network.num_inputs)]
    if len(profiles) == 1 and all(low == high for low, _, high in profiles[0].values()):
        for tensor in named:
            tensor.shape = dims(tensor.name, {axis: best for axis, (_, best, _) in profiles[0].items()})
        return
    for lengths in profiles:
        profile = builder.create_optimization_profile()
        low, best, high = ({axis: among[i] for axis, among in lengths.items()} for i in range(3))
        for tensor in named:
            if any(isinstance(n, str) for n in inputs[tensor.name].shape):
                name = tensor.name
                profile.set_shape(name, dims(name, low), dims(name, best), dims(name, high))
        config.add_optimization_profile(profile)


def collecting_logger(trt: Any) -> Any:
    """A logger that keeps the last error, the latest lines, and what tells of an engine's layers.

    $LSX_TENSORRT_LOG : `error`, `warning`, `info` or `verbose` prints messages from that severity on, as they come.
    """
    shown = _shown_severities(trt)

    class Collecting(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.last = "no reason given"
            self.layers: list[str] = []
            self.lines: deque[str] = deque(maxlen=_KEPT_LINES)

        def log(self, severity: Any, message: str) -> None:
            line = f"{severity.name.lower()}: {message.strip()}"
            if severity in shown:
                print(f"tensorrt {line}", file=sys.stderr)
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.last = message.strip().splitlines()[0]
            elif "LayerType: " in message:
                self.layers.append(message)
                return  # thousands of lines, which would drive all others out
            self.lines.append(line)

    return Collecting()


def with_log(error: LsxError, logger: Any) -> LsxError:
    """The error with the latest lines of TensorRT's log, which `--debug` prints with the traceback."""
    if logger.lines:
        error.add_note("the end of TensorRT's log:\n" + "\n".join(logger.lines))
    return error


def _shown_severities(trt: Any) -> set[Any]:
    level = os.environ.get("LSX_TENSORRT_LOG", "").lower()
    if not level:
        return set()
    names = ["internal_error", "error", "warning", "info", "verbose"]
    if level not in names[1:]:
        raise UsageError(f"LSX_TENSORRT_LOG is {level}; choose {', '.join(names[1:-1])} or {names[-1]}")
    return {getattr(trt.ILogger.Severity, name.upper()) for name in names[: names.index(level) + 1]}


def progress_monitor(trt: Any, cancelled: threading.Event, advance: Callable[[float], None]) -> Any:
    """TensorRT's own progress, as a share: each phase is a part of its parent's step."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._phases: dict[str, tuple[str | None, int, int]] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._phases[phase_name] = (parent_phase, max(num_steps, 1), 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            parent, steps, _ = self._phases[phase_name]
            self._phases[phase_name] = (parent, steps, step + 1)
            advance(self._done())
            return not cancelled.is_set()

        def phase_finish(self, phase_name: str) -> None:
            self._phases.pop(phase_name, None)

        def _done(self) -> float:
            share, weight, level = 0.0, 1.0, None
            while True:
                phases = [(n, p) for n, p in self._phases.items() if p[0] == level]
                if not phases:
                    return min(share, 1.0)
                level, (_, steps, done) = phases[0]
                share += weight * done / steps
                weight /= steps

    return Monitor()
