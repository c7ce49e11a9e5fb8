"""A browser's MediaSource plays the H.264 of a live session: a frame a fragment, in time, as it was painted."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from lsx.media.live_pictures import H264Fragments

pytest.importorskip("playwright.sync_api")

from playwright.sync_api import Browser

COLOURS = [(200, 40, 40), (40, 180, 60), (50, 60, 200)]
EACH = 20
"""Frames of each colour."""
PLAY = """async (fragments) => {
    const video = document.createElement("video");
    const source = new MediaSource();
    video.src = URL.createObjectURL(source);
    await new Promise((resolve) => source.addEventListener("sourceopen", resolve, { once: true }));
    const buffer = source.addSourceBuffer('video/mp4; codecs="avc1.42C01E"');
    const ends = [];
    for (const text of fragments) {
        buffer.appendBuffer(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)));
        await new Promise((resolve) => buffer.addEventListener("updateend", resolve, { once: true }));
        ends.push(buffer.buffered.length === 1 ? buffer.buffered.end(0) : null);
    }
    const shown = [];
    const canvas = new OffscreenCanvas(1, 1);
    const look = async (seconds) => {
        const seen = new Promise((resolve) => video.requestVideoFrameCallback((_, facts) => resolve(facts.mediaTime)));
        video.currentTime = seconds;
        const at = await seen;
        const context = canvas.getContext("2d");
        context.drawImage(video, 0, 0, 1, 1);
        shown.push([at, ...context.getImageData(0, 0, 1, 1).data.slice(0, 3)]);
    };
    for (let number = 0; number < fragments.length; number += 7) await look((number + 0.5) / 25);
    return { ends, shown, size: [video.videoWidth, video.videoHeight], error: video.error?.message ?? "" };
}"""


def test_mediasource_takes_a_fragment_a_frame(browser: Browser) -> None:
    frames = [np.full((130, 98, 3), colour, np.uint8) for colour in COLOURS for _ in range(EACH)]
    encoder = H264Fragments(98, 130, 90)
    fragments = [base64.b64encode(encoder.add(frame)).decode() for frame in frames]
    page = browser.new_page()
    found = page.evaluate(PLAY, fragments)
    page.close()
    assert found["error"] == ""
    assert found["size"] == [98, 130]
    assert found["ends"] == pytest.approx([(number + 1) / 25 for number in range(len(frames))], abs=1e-3)
    for (at, *colour), number in zip(found["shown"], range(0, len(frames), 7), strict=True):
        assert at == pytest.approx(number / 25, abs=1e-3)
        assert np.abs(np.subtract(colour, COLOURS[number // EACH])).max() <= 8
