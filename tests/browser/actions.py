"""What a user does in many tests, and where things are on the page."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Served

__all__ = ["JOB_ADDRESS", "Open", "choose", "finish", "region", "row", "submit", "wait_for_video"]

Open = Callable[..., Page]

JOB_ADDRESS = re.compile(r"/job/[^/]+$")


def choose(page: Page, served: Served) -> None:
    """Choose both files, and see that the server has taken them."""
    page.get_by_label("Choose a video").set_input_files(served.clips.video)
    page.get_by_label("Choose a sound").set_input_files(served.clips.sound)
    expect(region(page, "Video").get_by_text("128 × 128")).to_be_visible()
    expect(region(page, "Sound").get_by_text("0:02.0")).to_be_visible()


def submit(page: Page, served: Served) -> None:
    """A job of both files, and the page that shows it."""
    choose(page, served)
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page).to_have_url(JOB_ADDRESS)


def finish(page: Page, served: Served) -> Locator:
    """A job of both files that is done, on the page that shows it; its player."""
    submit(page, served)
    served.workers.finish_jobs()
    player = region(page, "Result")
    expect(player).to_contain_text("0:00.00 / 0:02")
    return player


def region(page: Page, name: str) -> Locator:
    """A part of the page by its heading."""
    return page.get_by_role("region", name=name, exact=True)


def row(page: Page, name: str) -> Locator:
    """A job in the list."""
    return region(page, "Jobs").get_by_role("listitem").filter(has=page.get_by_role("link", name=name, exact=True))


def wait_for_video(page: Page, condition: str) -> list[float]:
    """Where the player's two videos are, in seconds, once a condition on them, `result` and `original`, holds."""
    holds = page.wait_for_function(
        f"""() => {{
            const [result, original] = ["result", "original"].map((name) => document.querySelector(`video.${{name}}`));
            return {condition} && [result.currentTime, original.currentTime];
        }}"""
    )
    found: list[float] = holds.json_value()
    return found
