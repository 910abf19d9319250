"""`cluster new`: write a cluster.yaml to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coupler.commands.verb import verb
from coupler.result import Result, Text


@verb
def new(
    name: Annotated[str, typer.Argument(help="The cluster's name: a DNS label.")],
    folder: Annotated[Path, typer.Option("--folder", help="Where to write it.")] = Path(),
) -> Result:
    """Write a commented cluster.yaml, and the JSON Schema with which an editor checks it."""
    from coupler.workflows.new import write_new_cluster

    written = write_new_cluster(name, folder)
    names = ", ".join(str(path) for path in written)
    text = f"wrote {names}\nnext: edit {written[0]}: your git repository and your machines; then `cluster check`"
    return Text(text, {"files": [str(path) for path in written]})
