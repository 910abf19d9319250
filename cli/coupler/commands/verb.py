"""What every verb has in common: `--output`, `--debug`, and a result that is printed in one way."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from coupler.errors import ExitCode, UsageError
from coupler.result import Result

if TYPE_CHECKING:
    from coupler.model import LoadedCluster


class Output(StrEnum):
    """How a verb prints its answer on standard output."""

    TEXT = "text"
    JSON = "json"


@dataclass
class Invocation:
    """One run of `cluster`: what `__main__` must know to print an answer or an error. The context's `obj`."""

    verb: str = ""
    output: Output = Output.TEXT
    debug: bool = False


ClusterFile = Annotated[
    Optional[Path],  # noqa: UP045 - Typer evaluates the annotation
    typer.Option("--file", "-f", envvar="COUPLER_FILE", help="The cluster.yaml (default: searched for upwards)."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Limit = Annotated[
    Optional[list[str]],  # noqa: UP045 - Typer evaluates the annotation
    typer.Option("--limit", metavar="NODE", help="Only these nodes; may be given several times."),
]
Nodes = Annotated[
    Optional[int],  # noqa: UP045 - Typer evaluates the annotation
    typer.Option("--nodes", "-n", min=1, help="How many machines a new lab has.  [default: 3]"),
]
MirrorFolder = Annotated[
    Optional[Path],  # noqa: UP045 - Typer evaluates the annotation
    typer.Option("--mirror", help="The folder of programs that a new lab serves."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

_OUTPUT = inspect.Parameter(
    "output",
    inspect.Parameter.KEYWORD_ONLY,
    default=Output.TEXT,
    annotation=Annotated[Output, typer.Option("--output", "-o", envvar="COUPLER_OUTPUT", help="How to answer.")],
)
_DEBUG = inspect.Parameter(
    "debug",
    inspect.Parameter.KEYWORD_ONLY,
    default=False,
    annotation=Annotated[bool, typer.Option("--debug", envvar="COUPLER_DEBUG", help="Show tracebacks.")],
)
_CONTEXT = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)


def verb(function: Callable[..., Result]) -> Callable[..., None]:
    """Make a function that returns a result into a command that prints it, with `--output` and `--debug`."""

    @functools.wraps(function)
    def command(*, context: typer.Context, output: Output, debug: bool, **options: Any) -> None:
        from coupler import ui

        invocation: Invocation = context.find_root().obj
        invocation.verb = context.command_path.removeprefix(context.find_root().command_path).strip()
        invocation.output, invocation.debug = output, debug
        try:
            result = function(**options)
        except KeyboardInterrupt as error:
            raise typer.Abort from error  # Typer would make an exit code of it, without a word to the person
        ui.print_result(invocation.verb, result, as_json=output is Output.JSON)
        if result.exit_code is not ExitCode.DONE:
            raise typer.Exit(int(result.exit_code))

    signature = inspect.signature(function, eval_str=True)
    own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in signature.parameters.values()]
    command.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*own, _OUTPUT, _DEBUG, _CONTEXT], return_annotation=None
    )
    command.__annotations__ = {p.name: p.annotation for p in [*own, _OUTPUT, _DEBUG, _CONTEXT]}
    return command


def confirmation(*, yes: bool) -> Callable[[str], None]:
    """Return what asks a person before something is taken away; with `yes` it asks nobody.

    What it returns raises UsageError without a terminal to ask on, and typer.Abort if the answer is no.
    """

    def confirm(question: str) -> None:
        if yes:
            return
        if not sys.stdin.isatty():
            raise UsageError(question, why="there is no terminal to ask on", next_step="add --yes if you are sure")
        typer.confirm(question, abort=True, err=True)

    return confirm


def open_cluster(file: Path | None) -> LoadedCluster:
    """Load the cluster.yaml that the user named, or the one found upwards from here.

    Raises:
        ConfigurationError: there is none, or it is wrong.
    """
    from coupler.model import find_cluster_file, load_cluster

    return load_cluster(file or find_cluster_file(Path.cwd()))
