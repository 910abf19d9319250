"""How coreos-cloudinit reads, validates and applies a `#cloud-config`, in both of its lineages.

Stands alone: it also runs on nodes, as a program of its own (`python -m coupler.cloudinit`). The rest of the project
uses `check` for findings with places, `validate` for the real program's own words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coupler.cloudinit.grammar import Lineage

if TYPE_CHECKING:
    from coupler.cloudinit.verdict import Report
    from coupler.errors import Finding


def check(text: str, file: str, lineage: Lineage = Lineage.FLATCAR) -> list[Finding]:
    """Return what is wrong with user-data: the verdict of the real program, and what that silently lets pass.

    `file` is the name for the findings' locations. Findings are sorted by line.
    """
    from coupler.cloudinit.findings import findings

    return findings(text, file, lineage)


def check_data(data: bytes, file: str, lineage: Lineage = Lineage.FLATCAR) -> list[Finding]:
    """Return what is wrong with user-data as a data source has it: in bytes, perhaps compressed, perhaps too large."""
    from coupler.cloudinit.findings import findings_of_data

    return findings_of_data(data, file, lineage)


def validate(text: str, lineage: Lineage = Lineage.FLATCAR) -> Report:
    """Return what the lineage's `-validate` says of user-data, line by line."""
    from coupler.cloudinit import verdict

    return verdict.validate(text, lineage)
