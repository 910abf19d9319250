"""Bring up the load balancer and its registrator on the nodes with the role lb, by Ansible over SSH."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from coupler.errors import ConfigurationError, HostFailedError
from coupler.model import Role
from coupler.render.balancer import (
    ADDRESS_LISTEN,
    ADDRESS_UNIT,
    KUBECONFIG,
    LISTEN,
    REGISTRATOR_UNIT,
    SEAL_KEY,
    balancer_files,
    seals,
)
from coupler.result import HostOutcome, State, StepOutcome
from coupler.workflows.bundles import Files, install
from coupler.workflows.run import Run, hosts_step, target

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from coupler.model import Cluster, Node
    from coupler.model.services import LoadBalancer

DEADLINE = 60  # seconds
_PAUSE = 0.3  # seconds between two questions to a node
_READY = "curl --silent --show-error --max-time 5 --write-out '\\n%{{http_code}}' http://{}/readyz"


def balancing(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """Return those of the nodes that run the load balancer."""
    return tuple(node for node in nodes if Role.LB in node.roles)


def files_of(cluster: Cluster, balancer: LoadBalancer) -> Files:
    """Return what every node with the role lb gets. Raises ConfigurationError where a file cannot be read."""
    files = {path: (text.encode(), 0o644) for path, text in balancer_files(cluster, balancer).items()}
    if balancer.kubeconfig:
        files[KUBECONFIG] = (_read(balancer.kubeconfig), 0o600)
    if balancer.seal_key and seals(balancer):
        files[SEAL_KEY] = (_read(balancer.seal_key), 0o600)
    return files


class Balance:
    """One Ansible task for each node; then each registrator must say that its balancer has what it should have."""

    title = "balance"

    def run(self, run: Run) -> StepOutcome:
        """Run the playbook, and wait until each registrator is ready."""
        nodes, balancer = balancing(run.alive), run.cluster.load_balancer
        if not nodes or not balancer:
            return StepOutcome(self.title, State.UNCHANGED, "no node with the role lb is left")
        if run.plans_changes:
            return StepOutcome(self.title, State.PLANNED, f"would set up {_names(nodes)}")
        files = files_of(run.cluster, balancer)
        installed = {outcome.host: outcome for outcome in install(run, "lb", nodes, lambda _: files)}
        if run.dry_run:
            return hosts_step(self.title, tuple(installed.values()))

        def ask(node: Node) -> HostOutcome:
            await_ready(run, node)
            if balancer.virtual_address:
                await_address(run, node)
            return replace(installed[node.name], text="in step")

        ready = {outcome.host: outcome for outcome in run.on_every_node(ask, balancing(run.alive))}
        return hosts_step(self.title, tuple((installed | ready).values()))


def await_ready(run: Run, node: Node, seconds: float = DEADLINE) -> None:
    """Ask the registrator of a node until its balancer is in step.

    Raises:
        HostFailedError: it is not after `seconds`; the error says why.
        UnreachableError: the node does not answer.
    """
    _await(run, node, LISTEN, "its load balancer is not in step", REGISTRATOR_UNIT, seconds)


def await_address(run: Run, node: Node, seconds: float = DEADLINE) -> None:
    """Ask a node until it could have the virtual address, or has it. Raises as `await_ready`."""
    _await(run, node, ADDRESS_LISTEN, "it could not have the virtual address", ADDRESS_UNIT, seconds)


def _await(run: Run, node: Node, listen: str, complaint: str, unit: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        completed = run.connections.run(target(node), _READY.format(listen))
        said, _, code = completed.stdout.rpartition("\n")
        if code == "200":
            return
        lack = "; ".join(said.split("\n")).strip("; ") or completed.stderr.strip() or "it does not answer"
        if time.monotonic() > deadline:
            raise HostFailedError(
                complaint,
                why=lack,
                next_step=f"see its journal: ssh {node.ssh_user}@{node.ssh_address} journalctl -u {unit}",
                host=node.name,
            )
        run.progress.host(HostOutcome(node.name, State.RUNNING, lack))
        time.sleep(_PAUSE)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be read", why=error.strerror, next_step="see its permissions"
        ) from error


def _names(nodes: tuple[Node, ...]) -> str:
    return ", ".join(node.name for node in nodes)
