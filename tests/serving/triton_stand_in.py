"""A stand-in for `triton_python_backend_utils`, which only Triton's own processes have: it keeps that contract.

Tensors are of the names, types and shapes of config.pbtxt, nothing follows a final response, every request gets one.
"""

from __future__ import annotations

import json
import types
from typing import Any

import numpy as np
from google.protobuf import json_format, text_format
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2

__all__ = ["Request", "StandIn"]

_KINDS = {model_config_pb2.TYPE_STRING: "O", model_config_pb2.TYPE_UINT8: "uint8", model_config_pb2.TYPE_INT64: "int64"}


class Tensor:
    """A named array; strings are objects of bytes."""

    def __init__(self, name: str, array: NDArray[Any]) -> None:
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> NDArray[Any]:
        return self._array


class TritonError:
    """An error of a response."""

    INTERNAL, INVALID_ARG, CANCELLED = "INTERNAL", "INVALID_ARG", "CANCELLED"

    def __init__(self, message: str, code: str) -> None:
        self._message, self._code = message, code

    def message(self) -> str:
        return self._message

    def code(self) -> str:
        return self._code


class InferenceResponse:
    """Some of a model's outputs, or an error."""

    def __init__(self, output_tensors: list[Tensor], error: TritonError | None = None) -> None:
        self.tensors = {tensor.name(): tensor.as_numpy() for tensor in output_tensors}
        self.error = error


class Request:
    """A request and what it was answered; `leave_after` responses its client goes."""

    def __init__(self, config: Any, inputs: dict[str, bytes], leave_after: int | None = None) -> None:
        self._config, self._leave_after = config, leave_after
        self.inputs = {name: Tensor(name, np.array([content], np.object_)) for name, content in inputs.items()}
        self.answers: list[InferenceResponse] = []
        self.final = False

    def get_response_sender(self) -> Request:
        return self

    def is_cancelled(self) -> bool:
        return self._leave_after is not None and len(self.answers) >= self._leave_after

    def send(self, response: InferenceResponse | None = None, flags: int = 0) -> None:
        assert not self.final, "a response after the final one"
        if response is not None:
            known = {output.name: output for output in self._config.output}
            for name, array in response.tensors.items():
                assert array.dtype == np.dtype(_KINDS[known[name].data_type])
                assert len(array.shape) == len(known[name].dims)
                assert all(d in (-1, n) for d, n in zip(known[name].dims, array.shape, strict=True))
            self.answers.append(response)
        self.final = bool(flags & 1)


class StandIn:
    """The module, and the arguments of `initialize` for a model of a repository."""

    def __init__(self, text: str) -> None:
        self.config = text_format.Parse(text, model_config_pb2.ModelConfig())
        self.module = types.ModuleType("triton_python_backend_utils")
        own: dict[str, Any] = {"Tensor": Tensor, "TritonError": TritonError, "InferenceResponse": InferenceResponse}
        own |= {"TRITONSERVER_RESPONSE_COMPLETE_FINAL": 1}
        own["get_input_tensor_by_name"] = lambda request, name: request.inputs.get(name)
        self.module.__dict__.update(own)

    def arguments(self, folder: str) -> dict[str, str]:
        """As the server gives them, all of them text."""
        shown = json_format.MessageToDict(self.config, preserving_proto_field_name=True)
        return {
            "model_config": json.dumps(shown),
            "model_repository": folder,
            "model_version": "1",
            "model_instance_kind": "CPU",
            "model_instance_device_id": "0",
            "model_name": self.config.name,
        }
