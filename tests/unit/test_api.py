"""What `lsx` exports is there, and what was documented before still works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import lsx
from lsx import errors
from lsx.bundle.bundle import Bundle


def test_every_public_name_is_there() -> None:
    for name in lsx.__all__:
        assert getattr(lsx, name) is not None
    assert set(errors.__all__) < set(lsx.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        lsx.no_such_name  # noqa: B018


def test_every_public_name_is_on_the_page_of_the_api() -> None:
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
    listed = [line.removeprefix("::: lsx.") for line in page.splitlines() if line.startswith("::: lsx.")]
    assert sorted(listed) == sorted({*lsx.__all__} - {*errors.__all__, "__version__"})


def test_bundles_are_where_they_were() -> None:
    import lsx.bundle

    assert lsx.bundle.Bundle is Bundle is lsx.Bundle


def test_bundle_engine_is_deprecated_and_works(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []

    def take(*arguments: object, **options: object) -> None:
        asked.append((*arguments, options))

    monkeypatch.setattr(lsx, "load_engine", take, raising=False)
    bundle = object.__new__(Bundle)
    with pytest.warns(DeprecationWarning, match=r"call lsx\.load_engine"):
        bundle.engine("step", "onnxruntime", threads=1)
    assert asked == [(bundle, "step", "onnxruntime", {"threads": 1})]


def test_the_root_of_the_errors_is_never_raised_itself() -> None:
    root = Path(lsx.__file__).parent
    raised = re.compile(r"\bLsxError\(")
    found = {str(path.relative_to(root)) for path in root.rglob("*.py") if raised.search(path.read_text("utf-8"))}
    assert found == {"errors.py", "runtime/face_aligner.py"}  # its class; and a promise that is not a user's to break


def test_every_error_is_drawn_and_has_its_row() -> None:
    rows = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    for name in errors.__all__:
        assert re.search(rf"\b{name}\b", str(errors.__doc__)), name
        assert f"\n| `{name}` |" in rows, name


def test_the_first_page_leads_to_every_other() -> None:
    docs = Path(__file__).parents[2] / "docs"
    first = (docs / "index.md").read_text(encoding="utf-8")
    assert [page.name for page in sorted(docs.glob("*.md")) if f"({page.name})" not in first] == ["index.md"]


def test_the_glossarys_files_are_there() -> None:
    root = Path(__file__).parents[2]
    rows = (root / "docs" / "glossary.md").read_text(encoding="utf-8").splitlines()
    terms = [row.split("|")[1:4] for row in rows if row.startswith("| ") and "`lsx/" in row]
    assert len(terms) >= 25
    assert [term for term, _, _ in terms] == sorted((term for term, _, _ in terms), key=str.lower)
    for _, meaning, file in terms:
        assert meaning.strip().endswith(".")
        assert (root / file.strip().strip("`")).is_file(), file
