"""The command `cluster`: the table of its verbs, and the only place that turns an error into an exit code."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import traceback
from typing import Annotated

import typer
from typer.exceptions import TyperException

from coupler import __version__, ui
from coupler.commands import (
    certs,
    check,
    diff,
    doctor,
    init,
    kubeconfig,
    lab,
    lb,
    lock,
    mirror,
    new,
    nodes,
    preview,
    publish,
    remove,
    render,
    status,
)
from coupler.commands.verb import Invocation, Output
from coupler.errors import CouplerError, ExitCode, UsageError

app = typer.Typer(
    name="cluster",
    help="Couple Container Linux machines into a cluster: one cluster.yaml, one shared cloud-config, pulled from git.",
    epilog="Exit codes: 0 done, 1 failed, 2 usage, 3 configuration, 4 unreachable, 5 a host failed, 130 interrupted.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command("new")(new.new)
app.command("check")(check.check)
app.command("render")(render.render)
app.command("nodes")(nodes.nodes)
app.command("preview")(preview.preview)
app.command("diff")(diff.diff)
app.command("publish")(publish.publish)
app.command("init")(init.init)
app.command("status")(status.status)
app.command("remove")(remove.remove)
app.command("kubeconfig")(kubeconfig.kubeconfig)
app.command("doctor")(doctor.doctor)
app.add_typer(certs.app, name="certs")
app.add_typer(lb.app, name="lb")
app.add_typer(mirror.app, name="mirror")
app.add_typer(lock.app, name="lock")
app.add_typer(lab.app, name="lab")


@app.callback()
def _root(
    *,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    if version:
        ui.print_line(f"cluster {__version__}")
        raise typer.Exit


def main() -> None:
    """Run `cluster` and exit with its code. SIGTERM ends it as Ctrl-C does, with everything cleaned up."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    _open_streams()
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run `cluster` with `arguments` and return the exit code (see `coupler.errors.ExitCode`)."""
    invocation = Invocation(output=_output_asked_for(arguments), debug="--debug" in arguments)
    try:
        return int(typer.main.get_command(app).main(arguments, "cluster", standalone_mode=False, obj=invocation) or 0)
    except TyperException as error:
        return _fail(invocation, UsageError(error.format_message(), next_step=_help_for(error)), ExitCode.USAGE)
    except CouplerError as error:
        return _fail(invocation, error, error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        interrupted = CouplerError("interrupted", next_step="run the same command again: it goes on where it stopped")
        return _fail(invocation, interrupted, ExitCode.INTERRUPTED)
    except BrokenPipeError:
        sys.stdout = None  # nobody reads any more, and the interpreter must not flush into the closed pipe
        return ExitCode.DONE
    except Exception as error:  # noqa: BLE001 - the last resort: a person gets a sentence, not a traceback
        return _fail(invocation, _surprise(error), ExitCode.FAILED)


_OF_THE_MACHINE = {
    *(errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ELOOP),
    *(errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE),
}
"""What a system refuses for reasons of its own (errno(3)): no defect of the program that asked."""


def _surprise(error: Exception) -> CouplerError:
    """Return what to say of an error that nobody expected where it came up."""
    try:
        os.getcwd()  # noqa: PTH109 - it is the call that is asked about
    except FileNotFoundError:
        return CouplerError(
            "the current folder does not exist any more",
            why="it was deleted, or moved, while this shell was in it",
            next_step="cd to a folder that is there, then run the same command again",
        )
    if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
        place = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        chosen = ", ".join(name for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME") if name in os.environ)
        look = f"see whether it is there, who may use it and how much space is left{chosen and f'; also {chosen}'}"
        return CouplerError(
            f"{place}{error.strerror}",
            why="the system refused what this command needs",
            next_step=f"{look}; then run the same command again, with --debug to see what it was needed for",
        )
    return CouplerError(
        f"unexpected {type(error).__name__}: {error}",
        why="this is a defect in coupler",
        next_step="run the command again with --debug and report what it prints",
    )


def _open_streams() -> None:
    """Give a command that was started with closed standard streams (`>&-`) others that lead nowhere.

    Otherwise the next files that it opens would take their numbers, and get what is meant for a person. What a
    terminal's character set lacks is printed as a question mark, one for each, so that carets stay in their columns.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123 - open until the end
        stream = getattr(sys, name)
        if mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _fail(invocation: Invocation, error: CouplerError, code: ExitCode) -> int:
    if invocation.debug:
        traceback.print_exc()
    ui.print_error(invocation.verb, error, code, as_json=invocation.output is Output.JSON)
    return int(code)


def _output_asked_for(arguments: list[str]) -> Output:
    """Find `--output json` before the command line is parsed: a usage error is answered in JSON too."""
    pairs = zip(arguments, [*arguments[1:], ""], strict=True)
    asked = any(a in {"--output=json", "-ojson"} or (a in {"--output", "-o"} and b == "json") for a, b in pairs)
    return Output.JSON if asked else Output.TEXT


def _help_for(error: TyperException) -> str:
    context = getattr(error, "ctx", None)
    return f"{context.command_path if context else 'cluster'} --help shows what it takes"


if __name__ == "__main__":
    main()
