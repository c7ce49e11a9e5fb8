"""The page for everyone: without a mouse, on a telephone, in the dark, and as axe-core finds it."""

from __future__ import annotations

import re
from typing import Literal

import pytest

from tests.browser.conftest import Served

pytest.importorskip("playwright.sync_api")

from playwright.sync_api import Locator, Page, expect

from tests.browser.actions import JOB_ADDRESS, Open, choose, region, row, submit


def tab_to(page: Page, target: Locator) -> None:
    """Press the tab key until `target` has the focus."""
    for _ in range(60):
        if target.evaluate("(element) => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
    pytest.fail(f"the tab key does not lead to {target}")


def test_the_keyboard_suffices(open_page: Open, served: Served) -> None:
    page = open_page()
    page.on("filechooser", lambda _chooser: None)  # from here on: a chooser that is asked for now can be too late
    expect(page.get_by_label("Steps")).to_be_visible()
    for label, path in (("Choose a video", served.clips.video), ("Choose a sound", served.clips.sound)):
        tab_to(page, page.get_by_label(label))
        with page.expect_file_chooser() as choosing:
            page.keyboard.press("Enter")
        choosing.value.set_files(path)
        expect(page.locator("button:focus")).to_have_text(re.compile("Cancel upload|Remove"))
    expect(region(page, "Sound").get_by_text("0:02.0")).to_be_visible()
    tab_to(page, page.locator("summary", has_text="Sampling"))
    page.keyboard.press("Enter")
    tab_to(page, page.get_by_label("Guidance"))
    page.keyboard.press("ArrowUp")
    tab_to(page, page.get_by_role("button", name="Start", exact=True))
    page.keyboard.press("Enter")
    expect(page).to_have_url(JOB_ADDRESS)
    served.workers.finish_jobs()
    expect(region(page, "Result")).to_contain_text("0:00.00 / 0:02")
    tab_to(page, page.get_by_role("slider", name="Wipe"))
    page.keyboard.press("End")
    expect(page.get_by_role("slider", name="Wipe")).to_have_attribute("aria-valuetext", "100 % original")
    page.keyboard.press("k")
    expect(region(page, "Result").get_by_role("button", name="Pause")).to_be_visible()
    tab_to(page, page.get_by_role("button", name="Delete"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Keep it")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_theme_is_the_systems_until_another_is_chosen(open_page: Open, scheme: str) -> None:
    def lightness(page: Page) -> float:
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(float(number) for number in re.findall(r"\d+", colour)[:3]) / 765

    page = open_page()
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    assert (lightness(page) < 0.2) == (scheme == "dark")
    other = "Light theme" if scheme == "dark" else "Dark theme"
    page.get_by_role("button", name=other).click()
    assert (lightness(page) > 0.8) == (scheme == "dark")
    page.reload()
    expect(page.get_by_role("button", name="Dark theme" if scheme == "dark" else "Light theme")).to_be_visible()
    assert (lightness(page) > 0.8) == (scheme == "dark")


def overflow(page: Page) -> int:
    """By how many pixels the page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def test_nothing_is_cut_off_on_a_telephone(open_page: Open, served: Served) -> None:
    served.submit_jobs(2)
    page = open_page()
    page.set_viewport_size({"width": 360, "height": 740})
    choose(page, served)
    for fold in page.locator("summary").all():
        fold.click()
    expect(row(page, "take-1.mp4")).to_be_visible()
    assert overflow(page) <= 0
    page.get_by_label("Name of the result").fill("a-name-without-any-place-to-break-it-" * 2 + ".mp4")
    page.get_by_role("button", name="Start", exact=True).click()
    served.workers.start_jobs()
    expect(region(page, "Progress")).to_contain_text("frames")
    assert overflow(page) <= 0
    served.workers.finish_jobs()
    expect(region(page, "Result")).to_contain_text("0:00.00 / 0:02")
    assert overflow(page) <= 0
    page.get_by_text("Side by side").click()
    assert overflow(page) <= 0


def violations(page: Page) -> list[str]:
    """Each rule that is broken, with the elements that break it."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(page).response["violations"]
    return [f"{rule['id']}: {[node['html'][:120] for node in rule['nodes']]}" for rule in found]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(open_page: Open, served: Served, scheme: Literal["light", "dark"]) -> None:
    served.submit_jobs(2)
    served.workers.fail_next("no face was found in the video")
    served.workers.finish_jobs()
    page = open_page()
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    expect(row(page, "take-1.mp4")).to_be_visible()
    page.get_by_role("button", name="Start", exact=True).click()
    assert violations(page) == []  # with both files missing
    choose(page, served)
    for fold in page.locator("summary").all():
        fold.click()
    assert violations(page) == []
    row(page, "take-1.mp4").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert violations(page) == []
    page.get_by_role("dialog").get_by_role("button", name="Keep it").click()
    submit(page, served)
    served.workers.start_jobs()
    expect(region(page, "Progress")).to_contain_text("frames")
    assert violations(page) == []
    served.workers.finish_jobs()
    expect(region(page, "Result")).to_contain_text("0:00.00 / 0:02")
    page.get_by_text("Details").click()
    assert violations(page) == []
