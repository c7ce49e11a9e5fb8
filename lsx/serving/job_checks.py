"""What a request for a job must be, beyond its form: inputs that fit, uploads that are there, options that run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from lsx.core.footage import FootageOptions
from lsx.core.prepared_footage import FIXED, check_fixed
from lsx.errors import UsageError
from lsx.serving.database import ASSETS
from lsx.serving.job_options import named_option, run_options
from lsx.serving.problems import invalid
from lsx.serving.schemas import JobRequest

__all__ = [
    "check_assets",
    "check_options",
    "check_prepared",
    "named_assets",
    "named_avatar",
    "prepare_footage",
    "rows_of_assets",
]


def named_assets(request: JobRequest) -> dict[str, str]:
    """The ids of the uploads that a request names, with the kind that each is used as. Raises ApiProblem."""
    used: dict[str, str] = {}
    kinds = [given.type for given in request.input]
    segments = getattr(request.options, "segments", None) or []
    if kinds.count("video") + kinds.count("avatar") != 1 or kinds.count("audio") != (0 if segments else 1):
        wanted = "one video, as the segments have the sounds" if segments else "one video and one audio"
        raise invalid(f"give {wanted}; an avatar may take the video's place", "input")
    for given in request.input:
        is_avatar = given.type == "avatar"
        if is_avatar != (given.avatar_id is not None) or (is_avatar and (given.asset_id or given.url) is not None):
            raise invalid("give an avatar by its avatar_id alone, and others by asset_id or url", "input")
        if not is_avatar and (given.asset_id is None) == (given.url is None):
            raise invalid("give asset_id or url, and not both", "input")
        if given.asset_id is not None:
            used[given.asset_id] = given.type
    return used | {segment.audio: "audio" for segment in segments}


def named_avatar(request: JobRequest) -> str | None:
    """The id of the avatar that a request names in the place of a video."""
    return next((given.avatar_id for given in request.input if given.avatar_id is not None), None)


def check_options(request: JobRequest) -> None:
    """Raise ApiProblem for what `lsx run` refuses."""
    try:
        run_options(request.options.model_dump(exclude_unset=True))
    except UsageError as error:
        name = named_option(error)
        raise invalid(str(error), "options" if name is None else f"options.{name}", "invalid_options") from error


def check_prepared(request: JobRequest, prepared: Mapping[str, Any]) -> None:
    """Raise ApiProblem for options that an avatar has otherwise. prepared : the request that it was made from."""
    asked = run_options(request.options.model_dump(exclude_unset=True)).footage
    own = prepare_footage(prepared)
    try:
        check_fixed(asked, {name: getattr(own, name) for name in FIXED})
    except UsageError as error:
        raise invalid(str(error), f"options.{named_option(error)}", "invalid_options") from error


def prepare_footage(request: Mapping[str, Any]) -> FootageOptions:
    """What an avatar is prepared with, of a request for it. Raises UsageError."""
    return FootageOptions(**{name: request[name] for name in FIXED if name in request})


def rows_of_assets(connection: sa.Connection, used: Mapping[str, str]) -> Sequence[Any]:
    """The rows of those uploads of a request that are there."""
    return connection.execute(sa.select(ASSETS).where(ASSETS.c.id.in_(list(used)))).all()


def check_assets(rows: Sequence[Any], owner: str, used: Mapping[str, str]) -> dict[str, Any]:
    """The rows of the uploads that a request names, by their ids.

    used : the kind that each is used as. Raises ApiProblem for one that is not the owner's, and for one that has not
    what it is used for: a picture, a sound.
    """
    assets = {row.id: row for row in rows if row.owner == owner}
    for number in used:
        if number not in assets:
            raise invalid(f"there is no asset {number}; upload it first", "input", "no_such_asset")
    for number, kind in used.items():
        asset = assets[number]
        if kind == "video" and asset.kind != "video":
            raise invalid(f"{number} has no picture; give a video", "input", "no_video")
        if kind == "audio" and not asset.facts.get("has_sound", True):
            raise invalid(f"{number} has no sound", "input", "no_sound")
    return assets
