"""Which folders are an avatar's: those with an avatar.json of any schema, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from lsx.faces.avatar_folder import AVATAR, is_avatar


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"schema_version": 1, "encoder": "abc"}', True),
        ('{"schema_version": 99, "encoder": "abc", "more": []}', True),
        ('{"schema_version": 1}', False),
        ('{"encoder": "abc"}', False),
        ("{", False),
        ("7", False),
        ("", False),
        (None, False),
    ],
)
def test_a_folder_is_an_avatars_by_its_json(tmp_path: Path, content: str | None, expected: bool) -> None:
    if content is not None:
        (tmp_path / AVATAR).write_text(content)
    assert is_avatar(tmp_path) is expected


def test_what_is_no_folder_with_text_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert not is_avatar(tmp_path / "file")
    assert not is_avatar(tmp_path / "none")
    (tmp_path / AVATAR).write_bytes(b"\xff\xfe")
    assert not is_avatar(tmp_path)
