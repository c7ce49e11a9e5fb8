"""`lsx`: the commands, and how errors end."""

from __future__ import annotations

import sys

import typer

import lsx
from lsx.cli import bench, build, calibrate, checkpoint, doctor, export, inspect, run, verify
from lsx.cli.console import err, out, run_command

__all__ = ["app", "main"]

_INTERRUPTED = 130

app = typer.Typer(
    name="lsx",
    help="Deployment toolkit for LatentSync: checkpoints to ONNX bundles, bundles to lip-synced video.",
    no_args_is_help=False,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
    debug: bool = typer.Option(False, "--debug", help="Show tracebacks. Goes before the command."),
) -> None:
    del debug  # read in main(), before parsing can fail
    if version:
        out.print(f"lsx {lsx.__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        out.print(context.get_help())
        raise typer.Exit


app.command("export")(export.export)
app.command("calibrate")(calibrate.calibrate)
app.command("build")(build.build)
app.command("run")(run.run)
app.command("verify")(verify.verify)
app.command("bench")(bench.bench)
app.command("inspect")(inspect.inspect)
app.command("doctor")(doctor.doctor)
app.add_typer(checkpoint.app, name="checkpoint")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    code = 0

    def command() -> None:
        nonlocal code
        try:
            result = app(args=arguments, prog_name="lsx", standalone_mode=False, obj=tuple(arguments))
        except Exception as error:
            message = _usage_message(error)
            if message is None:
                raise
            err.print(f"[red]lsx:[/red] UsageError: {message}", markup=True)
            code = 2
            return
        code = result if isinstance(result, int) else 0
        if code == _INTERRUPTED:  # typer makes a number of it
            raise KeyboardInterrupt

    failed = run_command(command, debug=debug)
    sys.exit(failed or code)


def _usage_message(error: Exception) -> str | None:
    """One line for an error of the parser's own; None for any other error."""
    from rich.markup import escape

    show = getattr(error, "format_message", None)
    if show is None:
        return None
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "lsx"
    return escape(" ".join(f"{show().rstrip('.')}. See: {command} --help".split()))
