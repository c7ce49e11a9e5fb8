"""A bundle is written beside its target and renamed when whole: the old one stays on any failure."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path

import pytest

from lsx.bundle.bundle import Bundle
from lsx.bundle.manifest import MANIFEST
from lsx.bundle.writing import check_writable, written_beside
from lsx.core.atomic_files import check_folder
from lsx.engines.registry import EngineOptions
from lsx.errors import IntegrityError, OutputError
from lsx.verify.options import VerifyOptions, checked_backend


def _bundle(folder: Path, text: str) -> None:
    (folder / MANIFEST).write_text('{"schema_version": 1}')
    (folder / "content").write_text(text)


def test_the_new_takes_the_olds_place(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    for text in ("first", "second"):
        with written_beside(target) as folder:
            _bundle(folder, text)
        assert (target / "content").read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_failure_leaves_the_old(tmp_path: Path) -> None:
    target = tmp_path / "bundle"
    with written_beside(target) as folder:
        _bundle(folder, "old")

    def fail() -> None:
        with written_beside(target) as folder:
            _bundle(folder, "new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert (target / "content").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_what_is_no_bundle_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    with pytest.raises(OutputError, match="is not a bundle; lsx will not replace it"):
        check_writable(tmp_path / "photos")
    with pytest.raises(OutputError, match="no such folder"):
        check_writable(tmp_path / "none" / "bundle")
    check_writable(tmp_path / "new")


def test_a_folder_that_takes_nothing_is_refused(tmp_path: Path) -> None:
    """In /proc root may write, as far as permissions say; nothing can be made there."""
    with pytest.raises(OutputError, match=r"^/proc: cannot be written: "):
        check_folder(Path("/proc"))
    with pytest.raises(OutputError, match=r"^/proc: cannot be written: "):
        check_writable(Path("/proc/bundle"))
    check_folder(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_bundle_that_takes_no_record_is_refused_before_it_is_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(**_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", read_only)
    bundle = Bundle.open(Path(__file__).parent / "earlier" / "bundle")
    with pytest.raises(OutputError, match="bundle: cannot be written: Read-only file system"):
        checked_backend(bundle, VerifyOptions(), EngineOptions())
    with pytest.raises(IntegrityError):  # its graphs were not kept; without a record its folder is not tried
        checked_backend(bundle, VerifyOptions(record=False), EngineOptions())
