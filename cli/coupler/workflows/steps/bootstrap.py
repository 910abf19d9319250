"""Give every node what it needs to pull its configuration: the boot stub and its secrets, by Ansible over SSH."""

from __future__ import annotations

import base64
import io
import shutil
import tarfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from coupler.adapters.ansible import Event, Host, Login, run_playbook
from coupler.assets import asset
from coupler.errors import CouplerError
from coupler.render import render_boot_stub
from coupler.result import HostOutcome, State, StepOutcome
from coupler.workflows.certificates import Store
from coupler.workflows.run import Run, access, hosts_step
from coupler.workflows.workspace import write

if TYPE_CHECKING:
    from coupler.model import Node

STUB = "var/lib/coupler/boot-stub.yaml"


class Bootstrap:
    """One Ansible task for each node: its number is what costs time, so one script installs everything."""

    title = "bootstrap"

    def run(self, run: Run) -> StepOutcome:
        """Run the playbook; in a dry run with Ansible's check mode."""
        store = Store(run.workspace.pki, run.cluster)
        if run.dry_run and any(store.missing(datetime.now(UTC))):
            return StepOutcome(self.title, State.PLANNED, "would install the boot stub and secrets")
        bundles = run.scratch / "bundles"
        stub = render_boot_stub(run.cluster)
        for node in run.alive:
            write(bundles / node.name, bundle(node, stub, store), 0o600)
        outcomes: dict[str, HostOutcome] = {}

        def on_event(event: Event) -> None:
            outcomes[event.host] = run.record(_outcome(event, dry_run=run.dry_run))

        for node in run.alive:
            run.progress.host(HostOutcome(node.name, State.RUNNING))
        self._play(run, bundles, on_event)
        return hosts_step(self.title, tuple(outcomes[node.name] for node in run.nodes if node.name in outcomes))

    def _play(self, run: Run, bundles: Path, on_event: object) -> None:
        login = access(run.cluster, run.workspace)
        hosts = tuple(Host(node.name, node.ssh_address, node.ssh_port, node.ssh_user) for node in run.alive)
        known_hosts = (login.known_hosts, *login.more_known_hosts, Path("~/.ssh/known_hosts").expanduser())
        try:
            run_playbook(
                asset("playbooks") / "bootstrap.yml",
                hosts,
                Login(known_hosts, login.private_key),
                {"bootstrap_bundles": str(bundles)},
                run.scratch,
                on_event,  # type: ignore[arg-type]
                check=run.dry_run,
            )
        except CouplerError as error:
            if error.log:
                shutil.copyfile(error.log, run.workspace.log)
                error.log = str(run.workspace.log)
            raise


def bundle(node: Node, stub: str, store: Store) -> bytes:
    """Return the node's files as a tar archive in base64, the same bytes for the same files."""
    files = {STUB: (stub.encode(), 0o644), **store.files_for(node)}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, (content, mode) in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return base64.b64encode(buffer.getvalue())


def _outcome(event: Event, *, dry_run: bool) -> HostOutcome:
    states = {
        "ok": (State.UNCHANGED, ""),
        "changed": (State.PLANNED, "would install files") if dry_run else (State.DONE, "installed"),
        "unreachable": (State.UNREACHABLE, event.text),
    }
    state, text = states.get(event.state, (State.FAILED, event.text))
    no_space = "No space left on device" in text
    mend = "free space there: df -h" if no_space else "see to the machine, then run the same command again"
    outcome = HostOutcome(event.host, state, text)
    return replace(outcome, next_step=mend) if outcome.failed else outcome
