"""The pictures of docs/serving.md, from what `make demo` made: python -m scripts.serve_pictures DEMO. By Chromium."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import expect, sync_playwright

from examples.synthetic_clip import write_clip, write_wav
from examples.tiny.clips import tiny_clip
from examples.tiny.dataset import HELD_OUT
from examples.tiny.voice import speech
from tests.browser.actions import JOB_ADDRESS, region
from tests.browser.conftest import CHROMIUM, WAIT_MS
from tests.serving.served import serving

if TYPE_CHECKING:
    from playwright.sync_api import Page

FOLDER = Path(__file__).parents[1] / "docs" / "images"
_WIDTH = 900
_SEED, _FRAMES = HELD_OUT + 104, 64
_FADE_MS = 1000  # in which the browser's own controls fade


def _choose(page: Page, folder: Path) -> None:
    clip = tiny_clip(_SEED, _FRAMES)
    video = write_clip(folder / "interview.mp4", iter(clip.frames), sound=clip.samples)
    page.get_by_label("Choose a video").set_input_files(video)
    sound = write_wav(folder / "greeting.wav", speech(_FRAMES / 25, _SEED + 1))
    page.get_by_label("Choose a sound").set_input_files(sound)
    expect(region(page, "Sound").get_by_text("0:02.")).to_be_visible()
    expect(region(page, "Video").get_by_text("256 × 256")).to_be_visible()


def _photograph(page: Page, name: str) -> None:
    """The page's beginning."""
    page.evaluate("() => { document.activeElement.blur(); scrollTo(0, 0); }")
    page.wait_for_function("() => [...document.querySelectorAll('video')].every((video) => video.readyState === 4)")
    page.wait_for_timeout(2 * _FADE_MS)
    page.screenshot(path=FOLDER / name)


def main(demo: Path) -> None:
    """Write serve-new.png and serve-result.png."""
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(demo / "bundle", Path(folder) / "data") as served,
        sync_playwright() as playwright,
    ):
        served.ready()
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": _WIDTH, "height": _WIDTH}, device_scale_factor=1.2)
        page.set_default_timeout(WAIT_MS)
        page.goto(served.url)
        _choose(page, Path(folder))
        _photograph(page, "serve-new.png")
        page.get_by_label("Name of the result").fill("greeting.mp4")
        page.get_by_role("button", name="Start", exact=True).click()
        expect(page).to_have_url(JOB_ADDRESS)
        player = region(page, "Result")
        expect(player).to_be_visible(timeout=20 * WAIT_MS)
        player.get_by_role("slider", name="Position").fill("1.2")
        _photograph(page, "serve-result.png")
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
