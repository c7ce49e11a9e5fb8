"""README and docs: every shell and Python block is run as written, every error is explained, every drawing is true."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from examples.synthetic_clip import portrait_frames, speech, write_clip, write_wav
from lsx import errors
from lsx.bundle.bundle import Bundle
from lsx.core.tensors import Precision

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
REASONS = ("needs a GPU", "needs the model hub", "needs the network", "needs a server", "takes minutes")
_BLOCK = re.compile(r"(?:<!-- not run: ([^\n]*?) -->\n)?```(sh|python)\n(.*?)```", re.DOTALL)
_FENCE = re.compile(r"^ *```(.*)$", re.MULTILINE)
_COMMAND = re.compile(r"(\$ |lsx |make |pip |git |python |docker |curl |ffmpeg )")
_SHOWN = ("text", "json", "toml", "yaml")
"""What is not run: what a command prints, and what a file holds."""


def _blocks(page: Path) -> Iterator[tuple[str | None, str, str]]:
    """(why it is not run, language, text) of each block."""
    for match in _BLOCK.finditer(page.read_text(encoding="utf-8")):
        yield match[1], match[2], match[3]


@pytest.fixture(scope="module")
def things(
    bundle: Callable[[Precision, int], Bundle],
    checkpoint: Callable[[int], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """What the pages speak of, by their names: checkpoint, bundle, video.mp4, speech.wav, clips."""
    folder = tmp_path_factory.mktemp("pages")
    shutil.copytree(checkpoint(64), folder / "checkpoint")
    shutil.copytree(bundle("fp32", 64).path, folder / "bundle")
    write_clip(folder / "video.mp4", portrait_frames(40))
    write_wav(folder / "speech.wav", speech(0.64))
    (folder / "clips").mkdir()
    write_clip(folder / "clips" / "talk.mp4", portrait_frames(130), sound=speech(5.2))
    return folder


@pytest.fixture
def work(things: Path, tmp_path: Path) -> Path:
    """A page's own copy of them."""
    return shutil.copytree(things, tmp_path, dirs_exist_ok=True)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if [*_blocks(page)]], ids=lambda page: str(page.relative_to(ROOT))
)
def test_its_blocks_run(page: Path, work: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "LSX_THREADS": "1"}
    for reason, language, text in _blocks(page):
        if reason is not None:
            assert reason.startswith(REASONS), reason
            continue
        command = ["bash", "-euo", "pipefail", "-c", text] if language == "sh" else [sys.executable, "-c", text]
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def faults_of(text: str) -> list[str]:
    """Fences of a page that no test runs and that do not say why: without a label, or commands as text."""
    labels = [match[1].strip() for match in _FENCE.finditer(text)][::2]
    known = ("sh", "python", *_SHOWN)
    found = [f"fence {number} is labelled {label!r}" for number, label in enumerate(labels, 1) if label not in known]
    for block in re.findall(rf"```(?:{'|'.join(_SHOWN)})\n(.*?)```", text, re.DOTALL):
        found += [f"a command as text: {line}" for line in block.splitlines() if _COMMAND.match(line)]
    return found


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: str(page.relative_to(ROOT)))
def test_its_fences_say_what_they_are(page: Path) -> None:
    assert faults_of(page.read_text(encoding="utf-8")) == []


def test_a_fence_without_a_label_would_be_seen() -> None:
    assert faults_of("```sh\nlsx doctor\n```\n\n```text\nresult: x\n```\n") == []
    assert faults_of("```sh\nlsx doctor\n```\n\n```\nmake demo\n```\n") == ["fence 2 is labelled ''"]
    assert faults_of("```console\n$ lsx doctor\n```\n") == ["fence 1 is labelled 'console'"]
    assert faults_of("```text\nmake demo\n```\n") == ["a command as text: make demo"]


def test_every_error_is_explained() -> None:
    rows = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8").splitlines()
    explained = [row.split("|")[1:4] for row in rows if row.startswith("| `")]
    assert [name.strip(" `") for name, *_ in explained if name.strip(" `") not in errors.__all__] == []
    assert {name.strip(" `") for name, *_ in explained} == set(errors.__all__)
    for name, meaning, remedy in explained:
        assert meaning.strip().endswith("."), name
        assert remedy.strip().endswith("."), name


def test_the_drawings_are_the_codes() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "architecture.py"), "--check"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_the_front_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 650


def test_make_help_names_every_target() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert phony is not None
    shown = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert {line.split()[1] for line in shown.splitlines()} == {*phony[1].split()} - {"help"}


def test_the_site_builds_strictly(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path / "site")],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "site" / "api.html").read_text(encoding="utf-8").count("LipSync.stream") > 0
