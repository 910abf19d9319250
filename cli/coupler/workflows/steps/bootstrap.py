"""Give every node what it needs to pull its configuration: the boot stub and its secrets, by Ansible over SSH."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from coupler.render import render_boot_stub
from coupler.result import State, StepOutcome
from coupler.workflows.bundles import Files, install
from coupler.workflows.certificates import Store
from coupler.workflows.run import Run, hosts_step

if TYPE_CHECKING:
    from coupler.model import Node

STUB = "var/lib/coupler/boot-stub.yaml"


class Bootstrap:
    """One Ansible task for each node: its number is what costs time, so one script installs everything."""

    title = "bootstrap"

    def __init__(self, *, keys_only: bool = False) -> None:
        """With `keys_only` a node gets certificates and keys, and everything else there stays as it is."""
        self._keys_only = keys_only

    def run(self, run: Run) -> StepOutcome:
        """Run the playbook; in a dry run with Ansible's check mode."""
        store = Store(run.workspace.pki, run.cluster)
        if run.dry_run and any(store.missing(datetime.now(UTC))):
            what = "secrets" if self._keys_only else "the boot stub and secrets"
            return StepOutcome(self.title, State.PLANNED, f"would install {what}")
        stub = render_boot_stub(run.cluster).encode()

        def files_for(node: Node) -> Files:
            return store.files_for(node) if self._keys_only else node_files(node, stub, store)

        return hosts_step(self.title, install(run, "bootstrap", run.alive, files_for))


def node_files(node: Node, stub: bytes, store: Store) -> Files:
    """Return what a node gets."""
    return {STUB: (stub, 0o644), **store.files_for(node)}
