"""A served page, and a browser that looks at it."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
import uvicorn

from lsx.serving.database import database_url, migrate
from lsx.serving.http_app import create_app
from lsx.serving.settings import ServeSettings
from tests.browser.clips import write_sound, write_video
from tests.browser.hand_workers import HandWorkers

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page

CHROMIUM = Path("/usr/bin/chromium")
WAIT_MS = 30_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Clips:
    """Files as a user has them."""

    video: Path
    sound: Path
    text: Path
    """Called a video, and none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A server with the page, and the hand on its workers."""

    url: str
    workers: HandWorkers
    clips: Clips

    def submit_jobs(self, count: int) -> None:
        """Submit jobs as another client would."""
        with httpx.Client(base_url=self.url) as client:
            types = {"video": (self.clips.video, "video/mp4"), "audio": (self.clips.sound, "audio/wav")}
            assets = {
                kind: client.post(
                    "/v1/assets",
                    params={"filename": path.name},
                    content=path.read_bytes(),
                    headers={"Content-Type": media_type},
                ).json()["id"]
                for kind, (path, media_type) in types.items()
            }
            given = [{"type": kind, "asset_id": asset} for kind, asset in assets.items()]
            for number in range(count):
                headers = {"Idempotency-Key": f"test-{number}"}
                body = {"input": given, "output_file_name": f"take-{number + 1}.mp4"}
                client.post("/v1/jobs", json=body, headers=headers).raise_for_status()


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    """The files that tests upload."""
    folder = tmp_path_factory.mktemp("clips")
    text = folder / "notes.mp4"
    text.write_text("no video at all\n" * 40)
    video = write_video(folder / "interview.mp4", (40, 80, 160))
    return Clips(video=video, sound=write_sound(folder / "take.wav"), text=text)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What every job makes."""
    return write_video(tmp_path_factory.mktemp("made") / "result.mp4", (160, 80, 40))


@pytest.fixture
def served(tmp_path: Path, made: Path, clips: Clips) -> Iterator[Served]:
    """A server of its own for each test, on a free port; its workers are the test's."""
    database = database_url(None, tmp_path)
    migrate(database)
    app = create_app(ServeSettings(data=tmp_path, min_free_bytes=0))
    workers = HandWorkers(app, made)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    with workers.alive:
        yield Served(url=f"http://127.0.0.1:{listener.getsockname()[1]}", workers=workers, clips=clips)
    server.should_exit = True
    thread.join(60)
    listener.close()
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A Chromium for the tests of a module, with a microphone that hums. Playwright runs an event loop meanwhile."""
    api = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}; install it: apt-get install chromium")
    flags = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    environment = {**os.environ, "LANG": "en_GB.UTF-8"}
    api.expect.set_options(timeout=WAIT_MS)
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags, env=environment)
        yield browser
        browser.close()


@dataclass(slots=True)
class Console:
    """What the browser's console shows, and which refusals a test brings about itself."""

    messages: list[str] = field(default_factory=list)
    allowed: set[int] = field(default_factory=set)

    def listen(self, page: Page) -> None:
        """Note what this page's console shows, and what it does not catch."""

        def heard(message: ConsoleMessage) -> None:
            if not any(f"status of {status} " in message.text for status in self.allowed):
                self.messages.append(f"{message.type}: {message.text}")

        page.on("console", heard)
        page.on("pageerror", lambda error: self.messages.append(str(error)))


@pytest.fixture
def console() -> Iterator[Console]:
    """The console, which must be empty at a test's end. Add a status to `allowed` to let its refusals be logged."""
    console = Console()
    yield console
    assert not console.messages


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser that has never been here."""
    context = browser.new_context(accept_downloads=True)
    context.set_default_timeout(WAIT_MS)
    yield context
    context.close()


@pytest.fixture
def open_page(context: BrowserContext, served: Served, console: Console) -> Callable[[str], Page]:
    """Open an address of the server in a new tab."""

    def opened(path: str = "/") -> Page:
        page = context.new_page()
        console.listen(page)
        page.goto(served.url + path)
        return page

    return opened
