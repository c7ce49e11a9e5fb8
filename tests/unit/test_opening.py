"""Only media files are opened, and whatever FFmpeg says becomes one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from lsx.errors import MediaError
from lsx.media.opening import decoding, open_media, reason_of


def test_what_is_no_media_file(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile '/etc/passwd'\n")
    for name, said in (("none.mp4", "no such file"), ("", "is a folder"), ("text.mp4", "not a readable media file")):
        with pytest.raises(MediaError, match=said):
            open_media(tmp_path / name)
    with pytest.raises(MediaError, match="Playlists and scripts"):
        open_media(tmp_path / "list.mp4")
    with pytest.raises(MediaError, match="not a regular file"):
        open_media(Path("/dev/null"))


@pytest.mark.parametrize("raised", [IndexError("x"), ValueError("y\nz"), MemoryError()])
def test_any_error_of_a_decoder_names_file_and_place(raised: Exception) -> None:
    with (
        pytest.raises(MediaError, match=r"a\.mp4: damaged at 3 s .*Copy or download it again"),
        decoding(Path("a.mp4"), lambda: "at 3 s"),
    ):
        raise raised


def test_reasons_are_one_line() -> None:
    assert reason_of(ValueError("first\nsecond")) == "first"
    assert reason_of(MemoryError()) == "MemoryError"
    assert reason_of(OSError(28, "No space left on device")) == "No space left on device"
