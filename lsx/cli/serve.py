"""`lsx serve`: a bundle over HTTP, with jobs that outlive whatever happens."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_origin

import typer
from typer.core import TyperGroup

from lsx.cli.console import command, emit, out
from lsx.errors import MissingDependency, UsageError
from lsx.serving.settings import ServeSettings, settings_of

__all__ = ["app"]

_LIBRARIES = (
    "dbos",
    "fastapi",
    "obstore",
    "prometheus_client",
    "pydantic_settings",
    "sse_starlette",
    "structlog",
    "uvicorn",
    "websockets",
)
_DEFAULT = "start"


class _StartsByDefault(TyperGroup):
    """`lsx serve BUNDLE` is `lsx serve start BUNDLE`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ("-h", "--help")):
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=_StartsByDefault, help="Serve a bundle over HTTP.", no_args_is_help=False)
keys = typer.Typer(help="Keys of the API.", no_args_is_help=True)
app.add_typer(keys, name="key")


def _serve_extra() -> None:
    """Raise MissingDependency unless the `serve` extra is installed."""
    from importlib.util import find_spec

    for library in _LIBRARIES:
        if find_spec(library) is None:
            raise MissingDependency.of(library, "serve")


def _with_settings(function: Callable[..., object]) -> Callable[..., object]:
    """`function`, which takes ServeSettings, as a command with a flag for each of them, and --config."""
    config = Annotated[Path | None, typer.Option("--config", help="A TOML file with settings; flags go first.")]
    own = [p for p in inspect.signature(function, eval_str=True).parameters.values() if p.name != "settings"]

    def with_flags(**given: Any) -> object:
        _serve_extra()
        names = {parameter.name for parameter in own}
        flags = {name: value for name, value in given.items() if name not in names and name != "config"}
        settings = settings_of(given["config"], **{name: value for name, value in flags.items() if value != []})
        return function(settings=settings, **{name: given[name] for name in names})

    flags = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (default, annotation) in _flags().items()
    ]
    last = inspect.Parameter("config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=config)
    changed: Any = with_flags
    kept = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    changed.__signature__ = inspect.Signature([*kept, last, *flags])
    changed.__doc__, changed.__name__ = function.__doc__, function.__name__
    return with_flags


def _flags() -> dict[str, tuple[Any, Any]]:
    """Default and annotation of each setting's flag."""
    flags: dict[str, tuple[Any, Any]] = {}
    for name, field in ServeSettings.model_fields.items():
        kind: Any = field.annotation
        help_text = field.description or ""
        if name == "bundle":
            flags[name] = (None, Annotated[Path | None, typer.Argument(help=help_text)])
        elif get_origin(kind) is tuple:
            item = float if name == "hook_pauses" else str
            flags[name] = ([], Annotated[list[item], typer.Option(help=f"{help_text}; may be given several times")])  # type: ignore[valid-type]
        elif kind is bool:
            flags[name] = (None, Annotated[bool | None, typer.Option(help=help_text)])
        else:
            plain = (
                kind if kind in (int, float, str, Path) else next(arg for arg in kind.__args__ if arg is not type(None))
            )
            shown = typer.Option(
                help=f"{help_text} (default {field.default})"
                if field.default is not None and field.default_factory is None
                else help_text
            )
            flags[name] = (None, Annotated[plain | None, shown])
    return flags


@app.callback()
def _root() -> None:
    """Serve a bundle over HTTP: jobs, a page, webhooks."""


def start(
    settings: ServeSettings,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print the settings, and do nothing.")] = False,
) -> None:
    """Serve a bundle: HTTP, the page, one worker a GPU. Ends at SIGTERM, when the running jobs have ended."""
    if print_config:
        emit(**settings.shown())
        for name, value in settings.shown().items():
            out.print(f"{name} = {value}", markup=False)
        return
    _run(settings, http=True)


def worker(settings: ServeSettings) -> None:
    """Workers alone, for a database and a store that other machines share."""
    _check_shared(settings)
    _run(settings, http=False)


def on_ray(
    settings: ServeSettings,
    address: Annotated[str, typer.Option(help="The Ray cluster: HOST:PORT, or auto for this machine's.")] = "auto",
    actors: Annotated[
        int | None, typer.Option(min=1, help="Workers, a GPU each; default one for each GPU that the cluster has.")
    ] = None,
) -> None:
    """Workers on a Ray cluster, an actor a GPU, started again wherever there is one. Ends at SIGTERM, as serve does."""
    _check_shared(settings)
    if settings.bundle is None:
        raise UsageError("there is no bundle; give its folder, the same on every machine: lsx serve on-ray BUNDLE")
    _check_bundle(settings)
    from lsx.serving.start import check_start, serve_actors

    check_start(settings, http=False)
    serve_actors(settings, address, actors)


def _check_shared(settings: ServeSettings) -> None:
    if settings.database is None:
        raise UsageError(
            "workers of their own need --database postgresql://..., and --store where machines share files"
        )


def _check_bundle(settings: ServeSettings) -> None:
    from lsx.bundle.bundle import Bundle

    if settings.bundle is not None:
        Bundle.open(settings.bundle)


def _run(settings: ServeSettings, *, http: bool) -> None:
    if settings.bundle is None and settings.workers != "none":
        raise UsageError("there is no bundle; give its folder: lsx serve BUNDLE")
    _check_bundle(settings)
    from lsx.serving.start import addressed, check_start, serve

    check_start(settings, http=http)
    if not http:
        serve(settings, http=False)
        return
    with addressed(settings) as known:
        out.print(f"lsx serve: {known.url} (data: {known.data})", markup=False)
        serve(known, http=True)


def create(
    settings: ServeSettings,
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    scope: Annotated[str, typer.Option(help="jobs, read, metrics or admin; several with commas.")] = "jobs",
    most_queued: Annotated[int | None, typer.Option(min=1, help="Jobs of this key that wait or run at most.")] = None,
) -> None:
    """Make a key, and show it this once."""
    from lsx.serving.start import key_book

    key, text = key_book(settings).create(name, scope.split(","), most_queued)
    out.print(text, markup=False)
    emit(id=key.id, name=key.name, scopes=list(key.scopes), key=text)


def list_keys(settings: ServeSettings) -> None:
    """List the keys, without their secrets."""
    from lsx.serving.start import key_book

    found = key_book(settings).every()
    for key in found:
        state = "revoked" if key.revoked_ms is not None else ", ".join(key.scopes)
        out.print(f"{key.id}  {key.name}  {state}", markup=False)
    emit(
        keys=[{"id": key.id, "name": key.name, "scopes": key.scopes, "revoked": bool(key.revoked_ms)} for key in found]
    )


def revoke(
    settings: ServeSettings, key_id: Annotated[str, typer.Argument(help="The key's id, as `list` shows it.")]
) -> None:
    """End a key. Requests with it are refused within five seconds."""
    from lsx.serving.start import key_book

    key_book(settings).revoke(key_id)
    out.print(f"revoked {key_id}", markup=False)
    emit(revoked=key_id)


def doctor(settings: ServeSettings) -> None:
    """Say what is there and what is missing: bundle, database, store, keys, disk, workers."""
    from lsx.serving.start import diagnose

    checks = diagnose(settings)
    for check in checks:
        out.print(f"{'ok  ' if check.fine else 'FAIL'} {check.name}: {check.said}", markup=False)
    emit(checks=[{"name": check.name, "fine": check.fine, "said": check.said} for check in checks])
    if not all(check.fine for check in checks):
        raise UsageError("not ready to serve: " + "; ".join(f"{c.name}: {c.said}" for c in checks if not c.fine))


app.command(_DEFAULT)(command(_with_settings(start)))
app.command("worker")(command(_with_settings(worker)))
app.command("on-ray")(command(_with_settings(on_ray)))
app.command("doctor")(command(_with_settings(doctor)))
keys.command("create")(command(_with_settings(create)))
keys.command("list")(command(_with_settings(list_keys)))
keys.command("revoke")(command(_with_settings(revoke)))
