"""`lsx`: the commands, and how errors end."""

from __future__ import annotations

import gc
import sys

import typer

import lsx
from lsx.cli import (
    batch,
    bench,
    build,
    calibrate,
    checkpoint,
    data,
    distill,
    doctor,
    export,
    faces,
    fetch,
    inspect,
    jobs,
    prepare,
    run,
    serve,
    train,
    triton,
    verify,
)
from lsx.cli.aliases import current_arguments
from lsx.cli.console import JsonFlag, QuietFlag, VerboseFlag, command, emit, fail, mode, out, run_command, set_mode
from lsx.cli.usage import usage_message

__all__ = ["app", "main"]

_INTERRUPTED = 130
_LIVING = 100_000  # objects more, after which Python looks for dead cycles: a library brings millions that all stay


class _Said(BaseException):
    """A usage error that was printed."""


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
    json: JsonFlag = False,
    quiet: QuietFlag = False,
    verbose: VerboseFlag = False,
) -> None:
    del debug  # read in main(), before parsing can fail
    set_mode(json=json, quiet=quiet, verbose=verbose)
    if version:
        out.print(f"lsx {lsx.__version__}")
        emit(version=lsx.__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        out.print(context.get_help())
        raise typer.Exit


app.command("fetch")(command(fetch.fetch))
app.command("export")(command(export.export))
app.command("calibrate")(command(calibrate.calibrate))
app.command("build")(command(build.build))
app.command("faces")(command(faces.faces))
app.command("prepare")(command(prepare.prepare))
app.command("run")(command(run.run))
app.command("batch")(command(batch.batch))
app.command("verify")(command(verify.verify))
app.command("bench")(command(bench.bench))
app.command("inspect")(command(inspect.inspect))
app.command("doctor")(command(doctor.doctor))
app.command("submit")(command(jobs.submit))
app.command("jobs")(command(jobs.jobs))
app.command("cancel")(command(jobs.cancel))
app.add_typer(checkpoint.app, name="checkpoint")
app.add_typer(data.app, name="data")
app.add_typer(train.app, name="train")
app.add_typer(distill.app, name="distill")
app.add_typer(serve.app, name="serve")
app.add_typer(triton.app, name="triton")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    if arguments is None:  # as a program of its own
        gc.set_threshold(_LIVING)
        arguments = sys.argv[1:]
    debug = "--debug" in arguments
    given = [a for a in arguments if a != "--debug"]
    mode.reset()
    out.quiet = False
    if "--json" in given:  # also where parsing fails
        set_mode(json=True, quiet=False, verbose=False)
    code = 0

    def work() -> None:
        nonlocal code
        arguments = current_arguments(given)
        try:
            result = app(args=arguments, prog_name="lsx", standalone_mode=False, obj=tuple(arguments))
        except Exception as error:
            message = usage_message(error, typer.main.get_command(app), arguments)
            if message is None:
                raise
            fail(2, "UsageError", message)
            code = 2
            raise _Said from None
        code = result if isinstance(result, int) else 0
        if code == _INTERRUPTED:  # typer makes a number of it
            raise KeyboardInterrupt

    try:
        failed = run_command(work, debug=debug)
    except _Said:
        failed = 0
    sys.exit(failed or code)
