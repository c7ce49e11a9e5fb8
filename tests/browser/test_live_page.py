"""The page on which an avatar speaks: the sound as it was given, pictures in step, a microphone, an interruption."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples.synthetic_clip import portrait_frames, speech, write_clip, write_wav
from lsx.bundle.bundle import Bundle
from lsx.core.tensors import Precision
from tests.browser.conftest import Console
from tests.serving.served import Served, serving, until

pytest.importorskip("playwright.sync_api")

from playwright.sync_api import BrowserContext, Page, expect

from tests.browser.test_accessibility import overflow, violations

LISTEN = """
    window.sounds = [];
    window.drawn = [];
    const start = AudioBufferSourceNode.prototype.start;
    AudioBufferSourceNode.prototype.start = function (when) {
        window.sounds.push([when, ...Array.from(this.buffer.getChannelData(0), (value) => Math.round(value * 32768))]);
        start.call(this, when);
    };
    const draw = CanvasRenderingContext2D.prototype.drawImage;
    const mouth = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    CanvasRenderingContext2D.prototype.drawImage = function (image, ...where) {
        draw.call(this, image, ...where);
        mouth.drawImage(image, -320, -300);
        window.drawn.push(Array.from(mouth.getImageData(0, 0, 1, 1).data.slice(0, 3)));
    };
"""


@pytest.fixture(scope="module")
def live(
    bundle: Callable[[Precision, int], Bundle], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Served, str]]:
    """A whole server with an avatar, and the avatar's id."""
    folder = tmp_path_factory.mktemp("live")
    face = write_clip(folder / "face.mp4", portrait_frames(24), crf=1)
    with serving(Path(bundle("fp32", 64).path), folder / "data") as served:
        served.ready()
        headers = {"Content-Type": "video/mp4"}
        query = {"name": "Anna"}
        number = served.api.post("/v1/avatars", params=query, content=face.read_bytes(), headers=headers).json()["id"]
        until(lambda: served.api.get(f"/v1/avatars/{number}").json()["status"] == "READY")
        yield served, number


@pytest.fixture
def page(live: tuple[Served, str], context: BrowserContext, console: Console) -> Page:
    """The page, of a server with an avatar."""
    page = context.new_page()
    console.listen(page)
    page.add_init_script(LISTEN)
    page.goto(live[0].url + "/live")
    return page


def _begin(page: Page) -> None:
    expect(page.get_by_role("combobox", name="Avatar")).to_contain_text("Anna")
    page.get_by_label("Steps").fill("1")
    page.get_by_role("button", name="Start").click()
    expect(page.get_by_text("It listens.")).to_be_visible()
    until(lambda: page.evaluate("drawn.length > 3"))


def _sounds(page: Page) -> tuple[Any, Any]:
    """When each piece was to be heard, and its samples."""
    found = np.array(page.evaluate("sounds"))
    return found[:, 0], found[:, 1:].astype(int)


def test_a_file_is_said_as_it_is(page: Page, tmp_path: Path) -> None:
    said = speech(1.5)
    _begin(page)
    idle = page.evaluate("drawn.length")
    page.get_by_label("Say a sound file").set_input_files(write_wav(tmp_path / "said.wav", said))
    expect(page.get_by_text("It speaks. Its first picture came")).to_be_visible()
    expect(page.get_by_text("It listens.")).to_be_visible()
    times, samples = _sounds(page)
    heard = samples.ravel()
    assert np.abs(heard[: len(said)] - said).max() <= 1
    assert not heard[len(said) :].any()
    assert np.diff(times)[:10] == pytest.approx(0.04, abs=1e-4)  # no gap within a chunk
    drawn = page.evaluate("drawn")
    assert len(drawn) > idle + 20
    assert np.std(drawn, axis=0).max() > 1  # the picture moves


def test_the_microphone_is_heard(page: Page) -> None:
    """Chromium's own beeps once a second."""
    _begin(page)
    page.get_by_role("button", name="Use the microphone").click()
    until(lambda: page.evaluate("sounds.length > 60"))
    page.get_by_role("button", name="Stop the microphone").click()
    expect(page.get_by_text("It listens.")).to_be_visible()
    _, samples = _sounds(page)
    assert samples.std() > 100


def test_an_interruption(page: Page, tmp_path: Path) -> None:
    _begin(page)
    page.get_by_label("Say a sound file").set_input_files(write_wav(tmp_path / "said.wav", speech(20)))
    expect(page.get_by_text("It speaks.")).to_be_visible()
    page.get_by_role("button", name="Interrupt").click()
    expect(page.get_by_text("It listens.")).to_be_visible()
    times, _ = _sounds(page)
    assert len(times) < 400
    page.get_by_role("button", name="End").click()
    expect(page.get_by_role("button", name="Start")).to_be_visible()
    _begin(page)  # at once


def test_what_is_no_sound(page: Page, tmp_path: Path) -> None:
    notes = tmp_path / "notes.wav"
    notes.write_text("none")
    _begin(page)
    page.get_by_label("Say a sound file").set_input_files(notes)
    expect(page.get_by_role("alert")).to_have_text("The browser finds no sound in notes.wav.")


def test_a_second_one_is_told_that_the_worker_speaks(page: Page, context: BrowserContext) -> None:
    _begin(page)
    other = context.new_page()
    other.goto(page.url)
    other.get_by_role("button", name="Start").click()
    expect(other.get_by_role("alert")).to_have_text("The server refused: every worker speaks already; try again later.")
    expect(other.get_by_role("button", name="Start")).to_be_enabled()


def test_everybody_can_use_it(page: Page) -> None:
    assert violations(page) == []
    _begin(page)
    assert violations(page) == []
    page.set_viewport_size({"width": 360, "height": 740})
    assert overflow(page) <= 0
