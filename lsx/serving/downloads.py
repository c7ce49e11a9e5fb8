"""Inputs that a job names by URL: downloaded from hosts that are allowed, before the job, and kept as uploads are."""

from __future__ import annotations

import http.client
from collections.abc import AsyncIterator
from urllib.parse import unquote

import anyio
from anyio import from_thread

from lsx.serving.gpu_queue import Owner
from lsx.serving.outside import AddressRefused, check_url, opened, pieces
from lsx.serving.problems import invalid
from lsx.serving.schemas import Input, JobRequest
from lsx.serving.settings import ServeSettings
from lsx.serving.upload_labels import length_of
from lsx.serving.uploads import Uploads

__all__ = ["Downloads"]

_TIMEOUT, _LONGEST = 30.0, 1800.0


class Downloads:
    """Makes uploads of URLs. Used from the server's threads."""

    def __init__(self, uploads: Uploads, settings: ServeSettings) -> None:
        self._uploads, self._settings = uploads, settings

    def fetched(self, owner: Owner, request: JobRequest) -> JobRequest:
        """The request with an asset in place of every URL. Raises ApiProblem for one that may not be asked."""
        if all(given.url is None for given in request.input):
            return request
        inputs = [self._fetched(owner, given) for given in request.input]
        return request.model_copy(update={"input": inputs})

    def _fetched(self, owner: Owner, given: Input) -> Input:
        if given.url is None:
            return given
        if not self._settings.allow_url:
            raise invalid("this server takes no URLs; upload the file", "input", "url_refused")
        try:
            parts = check_url(given.url, allowed=self._settings.allow_url)
            with opened("GET", parts, timeout=_TIMEOUT, longest=_LONGEST) as response:
                if response.status != 200:
                    raise AddressRefused(f"it answers {response.status}; redirects are not followed")
                name = unquote(parts.path.rpartition("/")[2])
                media_type = response.getheader("Content-Type", "application/octet-stream")
                known = length_of(response.getheader("Content-Length", ""))

                async def body() -> AsyncIterator[bytes]:
                    coming = pieces(response, self._settings.max_upload_bytes)
                    while (piece := await anyio.to_thread.run_sync(next, coming, b"")) != b"":
                        yield piece

                asset = from_thread.run(self._uploads.take, owner.id, name, media_type, known, body())
        except AddressRefused as error:
            raise invalid(f"url: {error}", "input", "url_refused") from error
        except (OSError, http.client.HTTPException) as error:
            raise invalid(f"url: it cannot be downloaded ({type(error).__name__})", "input", "url_failed") from error
        return Input(type=given.type, asset_id=asset.id)
