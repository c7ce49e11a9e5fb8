"""The page of `lsx serve`, as a user has it: whatever a test does, a person could do."""

from __future__ import annotations

import base64
import re

import pytest

from tests.browser.conftest import Console, Served

pytest.importorskip("playwright.sync_api")

from playwright.sync_api import expect

from tests.browser.actions import JOB_ADDRESS, Open, choose, finish, region, row, submit, wait_for_video


def test_from_two_files_to_a_result_that_plays(open_page: Open, served: Served) -> None:
    page = open_page()
    choose(page, served)
    page.get_by_text("Sampling").click()
    page.get_by_label("Seed").fill("7")
    expect(page.get_by_text("1 changed")).to_be_visible()
    page.get_by_label("Name of the result").fill("dubbed.mp4")
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page).to_have_url(JOB_ADDRESS)
    expect(page.get_by_role("heading", name="dubbed.mp4")).to_be_focused()
    expect(region(page, "Progress")).to_contain_text("this job is next")
    served.workers.start_jobs()
    expect(region(page, "Progress")).to_contain_text(re.compile(r"\d+ of \d+ frames .* left"))
    expect(page).to_have_title(re.compile("%.*dubbed.mp4"))
    served.workers.finish_jobs()
    player = region(page, "Result")
    expect(player).to_contain_text("0:00.00 / 0:02")
    player.get_by_role("button", name="Play").click()
    expect(player.get_by_role("button", name="Pause")).to_be_visible()
    expect(player.get_by_role("button", name="Play")).to_be_visible()  # at its end
    expect(player).to_contain_text(re.compile(r"0:0[12]\.\d\d / 0:02"))
    with page.expect_download() as downloading:
        page.get_by_role("link", name="Download").click()
    assert downloading.value.suggested_filename == "dubbed.mp4"
    assert downloading.value.path().stat().st_size > 1000
    page.get_by_text("Details").click()
    expect(page.get_by_role("definition").filter(has_text=re.compile("^7$"))).to_be_visible()


def test_the_original_goes_with_the_result(open_page: Open, served: Served) -> None:
    page = open_page()
    player = finish(page, served)
    wipe = player.get_by_role("slider", name="Wipe")
    wipe.focus()
    wipe.press("ArrowRight")
    expect(wipe).to_have_attribute("aria-valuetext", "51 % original")
    player.get_by_role("slider", name="Position").fill("1.2")
    expect(player).to_contain_text("0:01.20 / ")
    wait_for_video(page, "Math.abs(original.currentTime - 1.2) < 0.02")
    player.get_by_role("slider", name="Position").press(".")
    expect(player).to_contain_text("0:01.24 / ")
    player.get_by_role("slider", name="Position").fill("0")
    player.get_by_role("button", name="Play").click()
    result, original = wait_for_video(page, "result.currentTime > 1")
    assert abs(result - original) < 0.2
    player.get_by_text("Side by side").click()
    expect(wipe).to_be_hidden()


def test_an_original_that_lands_beside_a_moment_is_left_there(open_page: Open, served: Served) -> None:
    """As in a browser that rounds times, where it would be sent to the same moment without end."""
    page = open_page()
    player = finish(page, served)
    wait_for_video(page, "original.readyState > 1")
    page.evaluate(
        """() => {
            const video = HTMLMediaElement.prototype;
            const { get, set } = Object.getOwnPropertyDescriptor(video, "currentTime");
            window.sent = [];
            Object.defineProperty(video, "currentTime", {
                get() { return get.call(this) + (this.className === "original" ? 0.02 : 0); },
                set(time) {
                    if (this.className === "original") window.sent.push(time);
                    set.call(this, time);
                },
            });
        }"""
    )
    for place in ("0.5", "1.5", "0.5"):
        player.get_by_role("slider", name="Position").fill(place)
        wait_for_video(page, f"!original.seeking && Math.abs(original.currentTime - {place}) < 0.03")
        for _ in range(5):
            page.evaluate("() => new Promise((done) => requestAnimationFrame(done))")
    assert page.evaluate("window.sent") == [0.5, 1.5, 0.5]


def test_a_running_job_is_cancelled_and_run_again(open_page: Open, served: Served) -> None:
    page = open_page()
    submit(page, served)
    first = page.url
    served.workers.start_jobs()
    page.get_by_role("button", name="Cancel").click()
    expect(page).to_have_title(re.compile("^Cancelled"))
    expect(region(page, "Progress")).to_be_hidden()
    page.get_by_role("button", name="Retry").click()
    expect(region(page, "Progress")).to_contain_text("next")
    assert page.url != first


def test_an_upload_is_cancelled(open_page: Open, served: Served) -> None:
    page = open_page()
    page.route("**/v1/assets?*", lambda _route: None)  # a server that is never done
    page.get_by_label("Choose a video").set_input_files(served.clips.video)
    video = region(page, "Video")
    expect(video.get_by_role("progressbar", name="Upload")).to_be_visible()
    video.get_by_role("button", name="Cancel upload").click()
    expect(page.get_by_label("Choose a video")).to_be_focused()
    page.unroute_all()
    submit(page, served)


def test_a_file_that_is_no_video_is_refused(open_page: Open, served: Served, console: Console) -> None:
    console.allowed.add(415)
    page = open_page()
    page.get_by_label("Choose a video").set_input_files(served.clips.text)
    video = region(page, "Video")
    expect(video.get_by_role("alert")).to_contain_text("notes.mp4")
    page.get_by_role("button", name="Start", exact=True).click()
    expect(region(page, "Sound").get_by_role("alert")).to_have_text("Choose a sound first.")
    video.get_by_role("button", name="Remove").click()
    expect(video.get_by_role("alert")).to_be_hidden()
    submit(page, served)


def test_a_refused_option_is_said_beside_it(open_page: Open, served: Served, console: Console) -> None:
    console.allowed.add(422)
    page = open_page()
    choose(page, served)
    steps, speaker = page.get_by_label("Steps"), page.get_by_label("Speaker")
    steps.fill("1001")
    page.get_by_role("button", name="Start", exact=True).click()
    expect(steps).to_be_focused()
    expect(steps).to_have_attribute("aria-invalid", "true")  # by the browser
    steps.fill("4")
    speaker.fill("nobody")
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.locator("[data-option=speaker]")).to_contain_text("nobody")  # by the server
    expect(speaker).to_be_focused()
    expect(speaker).to_have_attribute("aria-invalid", "true")
    page.get_by_role("button", name="Reset options").click()
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page).to_have_url(JOB_ADDRESS)


def test_a_failure_is_shown(open_page: Open, served: Served) -> None:
    page = open_page()
    submit(page, served)
    served.workers.fail_next("no face was found in the video")
    served.workers.finish_jobs()
    expect(page.get_by_role("alert").filter(has_text="no face was found in the video")).to_be_visible()
    expect(page).to_have_title(re.compile("^Failed"))


def test_a_reload_comes_back_to_the_job(open_page: Open, served: Served) -> None:
    page = open_page()
    submit(page, served)
    served.workers.start_jobs()
    expect(region(page, "Progress")).to_contain_text("frames")
    page.reload()
    expect(region(page, "Progress")).to_contain_text("frames")
    served.workers.finish_jobs()
    player = region(page, "Result")
    expect(player.get_by_role("slider", name="Wipe")).to_be_visible()
    wait_for_video(page, "original.readyState > 1")  # the server's copy
    page.go_back()
    expect(page.get_by_role("heading", name="New job")).to_be_visible()
    page.go_forward()
    expect(region(page, "Result")).to_be_visible()


def test_jobs_are_listed_cancelled_and_deleted(open_page: Open, served: Served) -> None:
    served.submit_jobs(12)
    page = open_page()
    jobs = region(page, "Jobs")
    expect(jobs.get_by_role("listitem")).to_have_count(10)
    jobs.get_by_role("button", name="Show more").click()
    expect(jobs.get_by_role("listitem")).to_have_count(12)
    expect(jobs.get_by_role("button", name="Show more")).to_be_hidden()
    row(page, "take-3.mp4").get_by_role("button", name="Cancel").click()
    expect(row(page, "take-3.mp4")).to_contain_text("Cancelled")
    served.workers.finish_jobs()
    expect(row(page, "take-1.mp4")).to_contain_text("Done")
    row(page, "take-1.mp4").get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Keep it").click()
    expect(row(page, "take-1.mp4").get_by_role("button", name="Delete")).to_be_focused()
    page.keyboard.press("Enter")
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(row(page, "take-1.mp4")).to_have_count(0)
    jobs.get_by_label("Show").select_option("Cancelled")
    expect(jobs.get_by_role("listitem")).to_have_count(1)
    row(page, "take-3.mp4").get_by_role("link").click()
    expect(page.get_by_role("heading", name="take-3.mp4")).to_be_visible()
    page.get_by_role("link", name="New job and all jobs").click()
    expect(page.get_by_role("heading", name="New job")).to_be_focused()


def test_files_are_dropped_anywhere(open_page: Open, served: Served) -> None:
    page = open_page()
    expect(page.get_by_label("Steps")).to_be_visible()
    files = [
        (path.name, base64.b64encode(path.read_bytes()).decode(), kind)
        for path, kind in ((served.clips.sound, "audio/wav"), (served.clips.video, "video/mp4"))
    ]
    dropped = page.evaluate_handle(
        """(files) => {
            const data = new DataTransfer();
            for (const [name, text, type] of files) {
                data.items.add(new File([Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0))], name, { type }));
            }
            return data;
        }""",
        files,
    )
    page.get_by_role("heading", name="New job").dispatch_event("drop", {"dataTransfer": dropped})
    expect(region(page, "Video")).to_contain_text("interview.mp4")
    expect(region(page, "Sound")).to_contain_text("take.wav")
    expect(region(page, "Video").get_by_text("128 × 128")).to_be_visible()


def test_the_sound_is_recorded(open_page: Open, served: Served) -> None:
    page = open_page()
    sound = region(page, "Sound")
    sound.get_by_role("button", name="Record").click()
    expect(sound).to_contain_text("0:01")
    sound.get_by_role("button", name="Stop recording").click()
    expect(sound).to_contain_text(re.compile(r"recording .*\.webm"))
    page.get_by_label("Choose a video").set_input_files(served.clips.video)
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page).to_have_url(JOB_ADDRESS)


def test_a_key_is_asked_for(open_page: Open, served: Served, console: Console) -> None:
    console.allowed.add(401)
    key = served.workers.require_key()
    page = open_page()
    dialog = page.get_by_role("dialog", name="This server needs a key")
    expect(dialog.get_by_label("Key", exact=True)).to_be_focused()
    dialog.get_by_label("Key", exact=True).fill("lsx_wrong")
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("alert")).to_be_visible()
    dialog.get_by_label("Key", exact=True).fill(key)
    dialog.get_by_role("button", name="Sign in").click()
    expect(dialog).to_have_count(0)
    submit(page, served)
    served.workers.finish_jobs()
    expect(region(page, "Result")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(dialog).to_be_visible()
