"""LatentSync in Triton's Python backend: `lsx triton export` copies this file into the model's version."""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # Triton's own, in its server alone
from pydantic import ValidationError

from lsx import CancelToken, LipSync, LsxError, SoundReader, VideoReader
from lsx.errors import Cancelled, EngineError, UsageError
from lsx.serving.job_options import JobOptions, RunOptions, run_options

_CHUNK = 16
_FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class TritonPythonModel:
    """A decoupled model: VIDEO and AUDIO in, FRAMES as they are ready, or the whole RESULT, out."""

    def initialize(self, args: Mapping[str, Any]) -> None:
        """Load the bundle on this instance's GPU; a first run is warm."""
        parameters = json.loads(args["model_config"])["parameters"]
        folder = Path(args["model_repository"]) / args["model_version"]
        backend = parameters["backend"]["string_value"]
        if args["model_instance_kind"] == "GPU":
            os.environ["CUDA_VISIBLE_DEVICES"] = str(args["model_instance_device_id"])
        self._lipsync = LipSync.open(folder / parameters["bundle"]["string_value"], backend)
        self._lipsync.warm_up()

    def execute(self, requests: list[Any]) -> None:
        """Answer each request in parts, until its final one; one whose client went is left within a chunk."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                with tempfile.TemporaryDirectory() as folder:
                    for answer in self._answers(request, sender, Path(folder)):
                        sender.send(answer)
            except Cancelled:
                _refuse(sender, "the client went", "CANCELLED")
            except (LsxError, ValueError) as error:
                _refuse(sender, str(error), "INTERNAL" if isinstance(error, EngineError) else "INVALID_ARG")
            else:
                sender.send(flags=_FINAL)

    def finalize(self) -> None:
        """Free the GPU."""
        self._lipsync.close()

    def _answers(self, request: Any, sender: Any, folder: Path) -> Iterator[Any]:
        video, audio = folder / "video", folder / "audio"
        video.write_bytes(_given(request, "VIDEO"))
        audio.write_bytes(_given(request, "AUDIO"))
        told = json.loads(_given(request, "OPTIONS", b"{}"))
        if not isinstance(told, dict):
            raise UsageError('OPTIONS is no object; give one in JSON, as {"steps": 20}')
        whole = told.pop("output", "frames") == "mp4"
        options = self._options(told)
        if whole:
            yield self._whole(video, audio, sender, options)
        else:
            yield from self._frames(video, audio, sender, options)

    def _options(self, told: dict[str, Any]) -> RunOptions:
        """As over HTTP: what names files of the server's is none of them."""
        try:
            given = JobOptions.model_validate(told).model_dump(exclude_unset=True)
        except ValidationError as error:
            first = error.errors()[0]
            raise UsageError(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}") from error
        if "segments" in given:
            raise UsageError("segments: a request has one sound here")
        return run_options(given, sampling=self._lipsync.bundle.sampling)

    def _frames(self, video: Path, audio: Path, sender: Any, options: RunOptions) -> Iterator[Any]:
        frames, samples = VideoReader(video).frames(), SoundReader(audio).samples()
        with self._lipsync.stream(frames, samples, None, options.sampling, footage=options.footage) as stream:
            for first in count(0, _CHUNK):
                part = list(islice(stream, _CHUNK))
                if sender.is_cancelled():
                    raise Cancelled("the client went")
                if not part:
                    return
                yield _response(FRAMES=np.stack(part), FIRST=np.array([first], np.int64))

    def _whole(self, video: Path, audio: Path, sender: Any, options: RunOptions) -> Any:
        cancel, result = CancelToken(), io.BytesIO()

        def look(_progress: object) -> None:
            if sender.is_cancelled():
                cancel.cancel()

        kinds: dict[str, Any] = {"footage": options.footage, "encode": options.encode}
        self._lipsync.run(video, audio, result, options.sampling, progress=look, cancel=cancel, **kinds)
        return _response(RESULT=np.array([result.getvalue()], np.object_))


def _given(request: Any, name: str, default: bytes | None = None) -> bytes:
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    if tensor is None and default is not None:
        return default
    if tensor is None:
        raise UsageError(f"there is no {name}")
    return bytes(tensor.as_numpy().reshape(-1)[0])


def _response(**tensors: Any) -> Any:
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in tensors.items()])


def _refuse(sender: Any, message: str, code: str) -> None:
    error = pb_utils.TritonError(message, getattr(pb_utils.TritonError, code))
    sender.send(pb_utils.InferenceResponse([], error), flags=_FINAL)
