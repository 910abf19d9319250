"""Work on nodes: a bundle of files for each, handed by one Ansible task to the one script of a role."""

from __future__ import annotations

import base64
import io
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from coupler.adapters.ansible import Event, Host, Login, run_playbook
from coupler.assets import asset
from coupler.errors import CouplerError
from coupler.result import HostOutcome, State
from coupler.workflows.run import access
from coupler.workflows.workspace import write

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from coupler.model import Node
    from coupler.workflows.run import Run

Files = Mapping[str, tuple[bytes, int]]
"""Content and mode of files, by path from a node's root."""


def bundle(files: Files) -> bytes:
    """Return files as a tar archive in base64: the same bytes for the same files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, (content, mode) in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return base64.b64encode(buffer.getvalue())


def install(run: Run, role: str, nodes: Sequence[Node], files_for: Callable[[Node], Files]) -> tuple[HostOutcome, ...]:
    """Run the playbook of a role with a bundle for each of the nodes, in a dry run with Ansible's check mode.

    Raises:
        CouplerError: Ansible itself failed; what fails on a node is its outcome.
    """
    folder = run.scratch / f"{role}-bundles"
    for node in nodes:
        write(folder / node.name, bundle(files_for(node)), 0o600)
    outcomes: dict[str, HostOutcome] = {}

    def on_event(event: Event) -> None:
        outcomes[event.host] = run.record(_outcome(event, dry_run=run.dry_run))

    for node in nodes:
        run.progress.host(HostOutcome(node.name, State.RUNNING))
    login = access(run.cluster, run.workspace)
    hosts = tuple(Host(node.name, node.ssh_address, node.ssh_port, node.ssh_user) for node in nodes)
    known_hosts = (login.known_hosts, *login.more_known_hosts, Path("~/.ssh/known_hosts").expanduser())
    try:
        run_playbook(
            asset("playbooks") / f"{role}.yml",
            hosts,
            Login(known_hosts, login.private_key),
            {f"{role}_bundles": str(folder)},
            run.scratch,
            on_event,
            check=run.dry_run,
        )
    except CouplerError as error:
        if error.log:
            shutil.copyfile(error.log, run.workspace.log)
            error.log = str(run.workspace.log)
        raise
    return tuple(outcomes[node.name] for node in run.nodes if node.name in outcomes)


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
