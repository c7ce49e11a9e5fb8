"""A new job as it comes: JSON, or a form that has its video and sound, too."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from typing import Any, TypeVar

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from lsx.serving.form_parts import form_parts
from lsx.serving.gpu_queue import Owner
from lsx.serving.problems import invalid
from lsx.serving.schemas import Asset, JobRequest
from lsx.serving.uploads import Uploads

__all__ = ["job_of_form", "known_by_content", "read_json"]

_MOST_JSON = 1 << 20
_KINDS = ("video", "audio")
_Model = TypeVar("_Model", bound=BaseModel)


def read_json(model: type[_Model], body: bytes) -> _Model:
    """What a body of JSON says; true and "3" are no numbers in it. Raises RequestValidationError."""
    try:
        return model.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error


async def job_of_form(
    uploads: Uploads, owner: Owner, stream: AsyncIterator[bytes], content_type: str
) -> tuple[JobRequest, JobRequest]:
    """The request that names a form's files as uploads, and the same that names them by their content.

    By the second one form is known again, whose files are other uploads each time. Raises ApiProblem,
    RequestValidationError.
    """
    told: dict[str, Any] = {}
    assets: dict[str, Any] = {}
    async for part in form_parts(stream, content_type):
        if part.name in assets or (part.name == "job" and told):
            raise invalid(f"the form has {part.name} twice", part.name)
        if part.name == "job":
            told = _told(await part.read(_MOST_JSON))
        elif part.name in _KINDS:
            assets[part.name] = await uploads.take(owner.id, part.filename, part.media_type, None, part.body)
        else:
            raise invalid(f"the form has a part {part.name!r}; its parts are video, audio and job", "form")
    given = [{"type": kind, "asset_id": asset.id} for kind, asset in assets.items()]
    inputs = told.get("input", [])
    request = read_json(
        JobRequest, json.dumps(told | {"input": [*given, *inputs] if isinstance(inputs, list) else inputs}).encode()
    )
    return request, known_by_content(request, assets.values())


def known_by_content(request: JobRequest, assets: Iterable[Asset]) -> JobRequest:
    """The request that names a form's files by what is in them."""
    hashes = {asset.id: asset.sha256 for asset in assets}
    inputs = [one.model_copy(update={"asset_id": hashes.get(str(one.asset_id), one.asset_id)}) for one in request.input]
    return request.model_copy(update={"input": inputs})


def _told(content: bytes) -> dict[str, Any]:
    try:
        found = from_json(content)
    except ValueError as error:
        raise invalid(f"job is no JSON: {error}", "job") from error
    if not isinstance(found, dict):
        raise invalid(f"job is {type(found).__name__}; give an object", "job")
    return found
