"""`cluster mirror`: the folder of programs and images that nodes fetch from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from coupler.commands.verb import ClusterFile, DryRun, verb
from coupler.errors import UsageError
from coupler.result import Result

if TYPE_CHECKING:
    from coupler.workflows.mirror import Opened

app = typer.Typer(help="The folder of programs and images that nodes fetch from.", no_args_is_help=True)

Mirror = Annotated[
    Optional[Path],  # noqa: UP045 - Typer evaluates the annotation
    typer.Option(
        "--mirror", metavar="DIR", envvar="COUPLER_MIRROR", help="The folder (default: cluster.yaml's, else the lab's)."
    ),
]
File = Annotated[Path, typer.Argument(metavar="FILE", help="A file on this machine.")]


@app.command("list")
@verb
def list_(file: ClusterFile = None, mirror: Mirror = None) -> Result:
    """Show what the cluster needs, and whether the mirror has it."""
    from coupler.workflows.mirror import mirror_list

    return mirror_list(_open(mirror, file))


@app.command("pull")
@verb
def pull(file: ClusterFile = None, mirror: Mirror = None, dry_run: DryRun = False) -> Result:
    """Download what the cluster needs and the mirror lacks."""
    from coupler import ui
    from coupler.workflows.mirror import mirror_pull

    return mirror_pull(_open(mirror, file, strict=True), ui.progress().note, dry_run=dry_run)


@app.command("add")
@verb
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The program, such as kubelet.")],
    program: File,
    version: Annotated[Optional[str], typer.Option("--version", metavar="V", help="Its version: 1.36.0.")] = None,  # noqa: UP045
    arch: Annotated[Optional[str], typer.Option("--arch", help="amd64 or arm64, where it is not the nodes'.")] = None,  # noqa: UP045
    file: ClusterFile = None,
    mirror: Mirror = None,
) -> Result:
    """Put a program of this machine into the mirror: the program itself, or the archive that it comes in."""
    from coupler.workflows.mirror import mirror_add

    if arch not in {None, "amd64", "arm64"}:
        raise UsageError(f"nodes are amd64 or arm64, not {arch}")
    return mirror_add(_open(mirror, file), name, program, version, arch)


@app.command("add-image")
@verb
def add_image(
    archive: File,
    name: Annotated[Optional[str], typer.Option("--name", metavar="NAME:TAG", help="What to call its image.")] = None,  # noqa: UP045
    file: ClusterFile = None,
    mirror: Mirror = None,
) -> Result:
    """Put an archive of container images into the mirror, as docker save writes it; nodes import it."""
    from coupler.workflows.mirror import mirror_add_image

    return mirror_add_image(_open(mirror, file), archive, name)


@app.command("verify")
@verb
def verify(
    file: ClusterFile = None,
    mirror: Mirror = None,
    index: Annotated[bool, typer.Option("--index", help="First list what was put there by hand.")] = False,
) -> Result:
    """Read every file of the mirror and hold it to its checksum."""
    from coupler.workflows.mirror import mirror_verify

    return mirror_verify(_open(mirror, file), index=index)


@app.command("serve")
@verb
def serve(
    file: ClusterFile = None,
    mirror: Mirror = None,
    address: Annotated[str, typer.Option("--address", help="Where to listen.")] = "0.0.0.0",  # noqa: S104
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="The port; 0 for a free one.")] = 8080,
) -> Result:
    """Serve the mirror over HTTP, for an air-gapped site, until it is interrupted."""
    from coupler import ui
    from coupler.workflows.mirror import mirror_serve

    return mirror_serve(_open(mirror, file), address, port, ui.progress().note)


def _open(mirror: Path | None, file: Path | None, *, strict: bool = False) -> Opened:
    from coupler.workflows.mirror import opened

    return opened(mirror, file, Path.cwd(), strict=strict)
