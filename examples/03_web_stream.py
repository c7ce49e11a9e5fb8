"""Frames into a web page while they are made (motion JPEG): uvicorn 03_web_stream:app --app-dir examples.

Set LSX_BUNDLE, LSX_VIDEO and LSX_AUDIO first. A closed page stops its run within a chunk.
"""

import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import cv2
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from lsx import LipSync, SoundReader, VideoReader


@asynccontextmanager
async def opened(app: FastAPI) -> AsyncIterator[None]:
    with LipSync.open(os.environ["LSX_BUNDLE"]) as lipsync:
        app.state.lipsync = lipsync  # one for all requests: runs take turns by the chunk
        yield


app = FastAPI(lifespan=opened)


@app.get("/stream")
async def stream(steps: int = 4) -> StreamingResponse:
    """The clip, lip-synced, a JPEG a frame."""
    frames, sound = VideoReader(os.environ["LSX_VIDEO"]).frames(), SoundReader(os.environ["LSX_AUDIO"])

    async def parts() -> AsyncGenerator[bytes, None]:
        async for frame in app.state.lipsync.astream(frames, sound.samples(), steps=steps):
            jpeg = cv2.imencode(".jpg", frame[..., ::-1])[1].tobytes()
            yield b"--frame\r\nContent-Type: image/jpeg\r\n\r\n" + jpeg + b"\r\n"

    return StreamingResponse(parts(), media_type="multipart/x-mixed-replace; boundary=frame")
