"""/v2/generate, asked by sync.so's own SDK; and what it translates into."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from sync import Sync
from sync.common import ActiveSpeaker, Audio, GenerationOptions, GenerationSegment, SegmentAudioInput, Video
from sync.common.errors import BadRequestError, NotFoundError, UnauthorizedError
from sync.core.api_error import ApiError

from lsx.serving.api_keys import KeyBook
from lsx.serving.database import engine_for, migrate
from lsx.serving.http_app import create_app
from lsx.serving.settings import ServeSettings
from tests.torture.harness import fake_server, write_media

pytestmark = pytest.mark.filterwarnings("ignore:You should not use the 'timeout' argument")
_LOCAL = "http://127.0.0.1:8000"


@pytest.fixture
def served(tmp_path: Path) -> ServeSettings:
    database = f"sqlite:///{tmp_path / 'jobs.sqlite'}"
    migrate(database)
    return ServeSettings(data=tmp_path / "data", database=database, machine="test", min_free_bytes=0)


@pytest.fixture
def key(served: ServeSettings) -> str:
    """A key, which the SDK always sends."""
    engine = engine_for(str(served.database))
    _, text = KeyBook(engine).create("sdk", ["jobs", "read"])
    engine.dispose()
    return text


@pytest.fixture
def http(served: ServeSettings, key: str) -> Iterator[Any]:
    """The application; of another library's class than the SDK's type says, and asked alike."""
    with TestClient(create_app(served), base_url=_LOCAL, headers={"X-Api-Key": key}) as client:
        yield client


@pytest.fixture
def sdk(http: Any, key: str) -> Sync:
    return Sync(base_url=_LOCAL, api_key=key, httpx_client=http)


@pytest.fixture
def media(http: Any, tmp_path: Path) -> tuple[str, str]:
    """The ids of an uploaded video and sound."""
    ids = []
    for path in write_media(tmp_path / "media"):
        answer = http.post("/v1/assets", params={"filename": path.name}, content=path.read_bytes())
        ids.append(str(answer.json()["id"]))
    return ids[0], ids[1]


def test_from_two_files_to_a_result(served: ServeSettings, key: str, tmp_path: Path) -> None:
    """A whole server, over the network."""
    settings = served.model_copy(update={"port": 0, "workers": "cpu:1", "poll_seconds": 0.05})
    own = {"X-Api-Key": key}
    with fake_server(settings) as server, httpx.Client(headers=own, timeout=30) as http:
        client = Sync(base_url=server.url, api_key=key, httpx_client=http)
        video, sound = write_media(tmp_path / "media")
        made = client.generations.create_with_files(
            model="lipsync-2", video=("video.mp4", video.read_bytes()), audio=("sound.wav", sound.read_bytes())
        )
        assert made.status == "PENDING"
        http.get(f"{server.url}/v2/generate/{made.id}", params={"wait": "true", "timeout": 30})
        found = client.generations.get(made.id)
        assert (found.status, found.model, found.error) == ("COMPLETED", "lipsync-2", None)
        assert found.output_url == f"{server.url}/v1/jobs/{made.id}/output"
        assert len(http.get(str(found.output_url)).content) > 1000
        assert [one.id for one in client.generations.list(status="COMPLETED")] == [made.id]


def test_what_it_translates_into(sdk: Sync, http: Any, media: tuple[str, str]) -> None:
    video, sound = media
    speaker = ActiveSpeaker(frame_number=0, coordinates=[31, 21])
    made = sdk.generations.create(
        model="sync-3",
        input=[Video(asset_id=video), Audio(asset_id=sound)],
        options=GenerationOptions(sync_mode="loop", active_speaker_detection=speaker),
        output_file_name="out-1",
    )
    job = http.get(f"/v1/jobs/{made.id}").json()
    assert [(one["type"], one["asset_id"]) for one in job["input"]] == [("video", video), ("audio", sound)]
    assert (job["options"]["extend"], job["options"]["speaker"]) == (
        "loop",
        "box=30,20,2,2@0",
    )
    assert job["output_file_name"] == "out-1.mp4"
    assert made.model == "sync-3"
    assert isinstance(made.options, GenerationOptions)
    assert made.options.sync_mode == "loop"
    assert [getattr(one, "asset_id", None) for one in made.input] == [video, sound]


@pytest.mark.parametrize(
    ("asked", "speaker"),
    [
        (ActiveSpeaker(auto_detect=True), "active"),
        (ActiveSpeaker(auto_detect=False), "largest"),
        (ActiveSpeaker(bounding_boxes=[[10, 20, 40, 60], None]), "box=10,20,30,40@0"),
    ],
)
def test_who_speaks(asked: ActiveSpeaker, speaker: str, sdk: Sync, http: Any, media: tuple[str, str]) -> None:
    made = sdk.generations.create(
        model="sync-3",
        input=[Video(asset_id=media[0]), Audio(asset_id=media[1])],
        options=GenerationOptions(active_speaker_detection=asked),
    )
    assert http.get(f"/v1/jobs/{made.id}").json()["options"]["speaker"] == speaker


def _segment(start: float, end: float, name: str = "one", **cut: float) -> GenerationSegment:
    return GenerationSegment(start_time=start, end_time=end, audio_input=SegmentAudioInput(ref_id=name, **cut))


def _speaking(**asked: Any) -> GenerationOptions:
    return GenerationOptions(active_speaker_detection=ActiveSpeaker(**asked))


def test_a_form_is_known_again_by_its_files(http: Any, tmp_path: Path) -> None:
    video, sound = (path.read_bytes() for path in write_media(tmp_path / "media"))
    ids = [
        http.post(
            "/v2/generate",
            files={"video": ("a.mp4", video), "audio": ("b", content)},
            data={"model": "any", "options": '{"sync_mode": "cut_off"}'},
            headers={"Idempotency-Key": key},
        ).json()["id"]
        for key, content in (("one", sound), ("one", sound), ("two", sound))
    ]
    assert ids[0] == ids[1] != ids[2]
    assert http.get(f"/v1/jobs/{ids[2]}").json()["options"]["extend"] == "cut_off"
    refused = http.post("/v2/generate", files={"video": ("a.mp4", video)}, data={"model": "any", "prompt": "happy"})
    assert (refused.status_code, refused.json()["message"]) == (400, "the form has a part 'prompt'")


def test_segments(sdk: Sync, http: Any, media: tuple[str, str]) -> None:
    video, sound = media
    made = sdk.generations.create(
        model="sync-3",
        input=[Video(asset_id=video), Audio(asset_id=sound, ref_id="one"), Audio(asset_id=sound, ref_id="two")],
        segments=[_segment(0, 0.1), _segment(0.1, 0.2, "two", start_time=0.25, end_time=0.4)],
    )
    job = http.get(f"/v1/jobs/{made.id}").json()
    told = [{k: one[k] for k in ("start", "end", "audio", "audio_offset")} for one in job["options"]["segments"]]
    assert told == [
        {"start": 0, "end": 0.1, "audio": sound, "audio_offset": 0},
        {"start": 0.1, "end": 0.2, "audio": sound, "audio_offset": -0.25},
    ]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"options": GenerationOptions(temperature=0.9)}, "options.temperature"),
        ({"options": GenerationOptions(occlusion_detection_enabled=True)}, "options.occlusion_detection_enabled"),
        ({"options": GenerationOptions(sync_mode="stretch")}, "options.sync_mode"),
        ({"options": _speaking(frame_number=3, coordinates=[1, 1])}, "the face is looked for in frame 0"),
        ({"options": _speaking(bounding_boxes=[None, [1, 1, 9, 9]])}, "no box of frame 0"),
        ({"segments": [_segment(0, 1, "none")]}, "no sound has the refId 'none'"),
        ({"segments": [_segment(0, 1, start_time=0.5, end_time=1.0)]}, "ends before its segment"),
        ({"output_file_name": "../out"}, "outputFileName"),
        ({"webhook_url": "ftp://example.com"}, "webhook_url"),
        ({"input": [Video(url="https://example.com/a.mp4")]}, "give one video, and one sound"),
    ],
)
def test_what_has_no_counterpart_is_refused_by_name(
    more: dict[str, Any], said: str, sdk: Sync, http: Any, media: tuple[str, str]
) -> None:
    given = {"input": [Video(asset_id=media[0]), Audio(asset_id=media[1], ref_id="one")]} | more
    with pytest.raises(BadRequestError) as refused:
        sdk.generations.create(model="sync-3", **given)
    assert said in str(refused.value.body.message)
    assert refused.value.body.status_code == 400
    assert http.get("/v1/jobs").json()["data"] == []


def test_who_may_ask_and_what_is_not_there(sdk: Sync, http: Any) -> None:
    assert sdk.generations.list() == []
    with pytest.raises(NotFoundError):
        sdk.generations.get("job_01k9zq3v0s9g0d9q7y6k2m4n8p")
    with pytest.raises(UnauthorizedError) as refused:
        Sync(base_url=_LOCAL, api_key="lsx_another", httpx_client=http).generations.list()
    assert refused.value.body.status_code == 401
    with pytest.raises(ApiError):
        sdk.assets.list()
