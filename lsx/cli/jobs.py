"""`lsx submit`, `lsx jobs`, `lsx cancel`: jobs of an `lsx serve`, from a machine that needs neither GPU nor bundle."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from lsx.cli.console import counted, emit, out, show_table, warn
from lsx.cli.progress import Task, task
from lsx.core.atomic_files import check_folder
from lsx.core.footage import FootageOptions
from lsx.errors import ServerRefused, UsageError
from lsx.serving.statuses import JobStatus

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from lsx.serving.client import Client
    from lsx.serving.schemas import Job

__all__ = ["cancel", "jobs", "submit"]

Server = Annotated[
    str | None, typer.Option(help="Its address; default $LSX_SERVER, else http://127.0.0.1:8000.", show_default=False)
]
Key = Annotated[
    str | None, typer.Option(help="Its key; default $LSX_KEY, which other users of this machine do not see.")
]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Wait until the job has ended, and write its result there.")
]


def _client(server: str | None, key: str | None) -> Client:
    from lsx.serving.client import Client

    return Client(server, key)


_FLAGS = {
    "steps": "Denoising steps; default the model's own.",
    "guidance": "How strongly the sound leads; 1 is off.",
    "cache_interval": "A full U-Net every this many steps, or off.",
    "seed": "Seed of the noise.",
    "sampler": "ddim, dpm++2m or ddim-trailing.",
    "codec": "h264, hevc, av1 or prores.",
    "preset": "The encoder's preset, as medium or slow.",
    "pix_fmt": "FFmpeg's name of a YUV format.",
    "audio_codec": "aac, opus, pcm or copy.",
    "crf": "Constant quality: lower is better.",
}
_LEFT_OUT = ("faces", "compare_layout", "segments")
"""Of FootageOptions: what names files of the server's, or uploads, which `Client.submit` takes."""


def _with_job_options(function: Callable[..., object]) -> Callable[..., object]:
    """`function`, which takes `options`, as a command with a flag for each of a job's options."""
    own = inspect.signature(function, eval_str=True).parameters
    footage = {name: field for name, field in FootageOptions.model_fields.items() if name not in _LEFT_OUT}
    flags = {}
    for name in (*_FLAGS, *footage):
        told = _FLAGS.get(name) or _told(footage[name])
        kind: Any = bool | None if name in footage and footage[name].annotation is bool else str | None
        shown = Annotated[kind, typer.Option(help=told)]
        flags[name] = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=shown)

    @functools.wraps(function)
    def with_flags(**given: Any) -> object:
        options = {name: given.pop(name) for name in flags}
        return function(**given, options={name: value for name, value in options.items() if value is not None})

    kept = [parameter for name, parameter in own.items() if name != "options"]
    changed: Any = with_flags
    changed.__signature__ = inspect.Signature([*kept, *flags.values()])
    return with_flags


def _told(field: FieldInfo) -> str:
    text = str(field.description)
    return f"{text} (default {field.default})." if field.default is not None else f"{text}."


@_with_job_options
def submit(
    video: Annotated[str, typer.Argument(help="Video with the face; or an address, an asset's or an avatar's id.")],
    audio: Annotated[str, typer.Argument(help="Speech; or an address or an asset's id.")],
    *,
    output: Output = None,
    server: Server = None,
    key: Key = None,
    priority: Annotated[int, typer.Option(help="1 goes first, 9 last.")] = 5,
    webhook_url: Annotated[str | None, typer.Option(help="Address that is told when the job has ended.")] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="KEY=VALUE, kept with the job; may be repeated.")] = None,
    output_file_name: Annotated[str | None, typer.Option(help="Name under which the result is offered.")] = None,
    options: dict[str, Any],
) -> None:
    """Have a server lip-sync a video to speech. Without -o it says the job's id and ends; the job goes on."""
    if output is not None:
        check_folder(output.absolute().parent)
    more: dict[str, Any] = {"options": options, "priority": priority, "metadata": _pairs(metadata or [])}
    more |= {"webhook_url": webhook_url} if webhook_url else {}
    more |= {"output_file_name": output_file_name} if output_file_name else {}
    with _client(server, key) as client:
        with task("submit") as shown:
            shown.update(f"sending to {client.server}")
            job = client.submit(video, audio, **more)
        emit(**job.model_dump(mode="json"))
        if output is None:
            out.print(f"job: {job.id} ({job.status}; its result: lsx jobs {job.id} -o FILE)")
        else:
            _fetch(client, job, output)


def _pairs(given: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in given]
    for name, sign, _ in pairs:
        if not name or not sign:
            raise UsageError(f"metadata {name!r} has no value; give KEY=VALUE")
    return {name: value for name, _, value in pairs}


def _fetch(client: Client, job: Job, output: Path) -> None:
    """Wait for a job and write its result. Raises ServerRefused where it has none."""
    try:
        with task("job") as shown:
            job = client.wait(job, lambda state: _show(shown, state))
            if job.status == "COMPLETED":
                shown.update("fetching the result")
                client.download(job, output)
    except KeyboardInterrupt:
        warn(f"job {job.id} goes on: lsx jobs {job.id} -o FILE, or lsx cancel {job.id}")
        raise
    emit(**job.model_dump(mode="json"))
    if job.status != "COMPLETED":
        error = job.error
        said = f": {error.message} ({error.code})" if error is not None else ""
        raise ServerRefused(f"job {job.id} is {job.status}{said}", status=200, code=error.code if error else "none")
    for note in job.notes:
        warn(note)
    emit(output=str(output))
    out.print(f"output: {output} ({job.output_duration or 0:.2f} s; job {job.id})")


def _show(shown: Task, job: Job) -> None:
    if job.status == "PENDING":
        place = "" if job.queue_position is None else f", place {job.queue_position} of the queue"
        shown.update(f"waiting{place}")
    elif job.progress is not None:
        p = job.progress
        left = "" if p.eta_seconds is None else f"{p.eta_seconds:.0f} s left"
        shown.update(p.stage, p.frames or None, p.total or None, left)


def jobs(
    job_ids: Annotated[list[str] | None, typer.Argument(help="Jobs to show; none lists the latest.")] = None,
    *,
    output: Output = None,
    status: Annotated[str | None, typer.Option(help=f"Only those: {', '.join(get_args(JobStatus))}.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1)] = 20,
    server: Server = None,
    key: Key = None,
) -> None:
    """Show a server's jobs, or fetch the result of one."""
    if status is not None and status not in get_args(JobStatus):
        raise UsageError(f"status is {status!r}; give one of {', '.join(get_args(JobStatus))}")
    if output is not None and len(job_ids or ()) != 1:
        raise UsageError("-o takes the result of one job; give its id: lsx jobs ID -o FILE")
    if output is not None:
        check_folder(output.absolute().parent)
    with _client(server, key) as client:
        if output is not None and job_ids:
            _fetch(client, client.job(job_ids[0]), output)
            return
        known: Any = status  # tested above
        shown = [client.job(number) for number in job_ids] if job_ids else list(islice(client.jobs(known), limit))
    emit(jobs=[job.model_dump(mode="json") for job in shown])
    _list(shown)


def _list(shown: list[Job]) -> None:
    from rich.table import Table

    if not shown:
        out.print("no jobs")
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("job", "status", "created", "frames", "file", "error"):
        table.add_column(heading, overflow="fold")
    for job in shown:
        p = job.progress
        frames = f"{p.frames} of {p.total}" if p is not None and p.total else ""
        error = "" if job.error is None else f"{job.error.code}: {job.error.message}"
        table.add_row(job.id, job.status, job.created_at[:19], frames, job.output_file_name, error)
    show_table(table)


def cancel(
    job_ids: Annotated[list[str], typer.Argument(help="Jobs to end.")], *, server: Server = None, key: Key = None
) -> None:
    """End a server's jobs. What has ended stays as it is, and is an error."""
    with _client(server, key) as client:
        ended = [client.cancel(number) for number in job_ids]
    emit(jobs=[job.model_dump(mode="json") for job in ended])
    out.print(f"canceled: {counted(len(ended), 'job')}")
