"""`cluster new`: put a cluster.yaml and its JSON Schema into a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coupler.errors import UsageError
from coupler.model.load import FILE_NAME
from coupler.model.scaffold import scaffold
from coupler.model.schema import SCHEMA_NAME, schema_text
from coupler.workflows.workspace import write

if TYPE_CHECKING:
    from pathlib import Path


def write_new_cluster(name: str, folder: Path) -> tuple[Path, Path]:
    """Write both files and return their paths.

    Raises:
        UsageError: there is a cluster.yaml already, or the name is no DNS label.
    """
    file, schema = folder / FILE_NAME, folder / SCHEMA_NAME
    if file.exists():
        raise UsageError(f"{file} exists", next_step="edit it, or choose another folder: --folder DIR")
    write(file, scaffold(name).encode(), 0o644)
    write(schema, schema_text().encode(), 0o644)
    return file, schema
