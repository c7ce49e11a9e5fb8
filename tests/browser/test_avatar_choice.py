"""Avatars on the page: a video is kept as one, and a job takes it in the place of a file."""

from __future__ import annotations

import httpx
import pytest

from tests.browser.conftest import Console, Served

pytest.importorskip("playwright.sync_api")

from playwright.sync_api import expect

from tests.browser.actions import JOB_ADDRESS, Open, choose, region, wait_for_video
from tests.browser.test_accessibility import overflow, violations


def test_a_video_is_kept_and_taken_again(open_page: Open, served: Served, console: Console) -> None:
    page = open_page()
    panel = region(page, "Avatar")
    keep = panel.get_by_role("button", name="Keep the video as an avatar")
    keep.click()
    expect(region(page, "Video")).to_contain_text("Give a video first.")
    expect(panel.get_by_label("Face")).to_be_hidden()
    choose(page, served)
    keep.click()
    expect(panel).to_contain_text("It is being prepared.")
    served.workers.prepare_avatars()
    expect(panel.get_by_label("Face")).to_be_visible()
    assert violations(page) == []
    page.set_viewport_size({"width": 360, "height": 740})
    assert overflow(page) <= 0
    page.reload()
    page.get_by_label("Choose a sound").set_input_files(served.clips.sound)
    panel.get_by_label("Face").select_option(label=served.clips.video.name)
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page).to_have_url(JOB_ADDRESS)
    inputs = httpx.get(f"{served.url}/v1/jobs/{page.url.rpartition('/')[2]}").json()["input"]
    avatar = httpx.get(f"{served.url}/v1/avatars").json()["data"][0]
    assert (inputs[0]["type"], inputs[0]["avatar_id"]) == ("avatar", avatar["id"])
    served.workers.finish_jobs()
    expect(region(page, "Result")).to_contain_text("0:00.00 / 0:02")
    wait_for_video(page, "original.readyState > 1")  # what the avatar keeps
    console.allowed.add(404)
    httpx.delete(f"{served.url}/v1/avatars/{avatar['id']}")
    page.reload()
    expect(region(page, "Result")).to_contain_text("0:00.00 / 0:02")
    expect(page.get_by_role("slider", name="Wipe")).to_be_hidden()
