"""Lists in pages, latest first: a cursor is the place of the last row that was given."""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy as sa

from lsx.serving.ids import is_id
from lsx.serving.problems import invalid

__all__ = ["cursor_of", "is_after", "place_of"]

_CURSOR = re.compile(r"([0-9]{1,15})\.(.*)")


def place_of(cursor: str | None) -> tuple[int, str] | None:
    """When the row was made after which the page begins, and its id. Raises ApiProblem for a cursor of no list's."""
    if cursor is None:
        return None
    found = _CURSOR.fullmatch(cursor)
    if found is None or not is_id(found[2]):
        raise invalid("cursor is none that a list gave", "cursor")
    return int(found[1]), found[2]


def cursor_of(place: tuple[int, str]) -> str:
    """The cursor of a place."""
    return f"{place[0]}.{place[1]}"


def is_after(table: sa.Table, place: tuple[int, str]) -> sa.ColumnElement[Any]:
    """Whether a row comes after a place."""
    beside = sa.and_(table.c.created_ms == place[0], table.c.id < place[1])
    return sa.or_(table.c.created_ms < place[0], beside)
