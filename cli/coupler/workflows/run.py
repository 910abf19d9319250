"""A run of a workflow: what its steps share, and the loop that goes through them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

from coupler.adapters.ssh import Access, Connections, Target
from coupler.errors import CouplerError, ExitCode, HostFailedError, UnreachableError, UsageError
from coupler.model.access import HostKeys
from coupler.result import HostOutcome, Progress, State, StepOutcome, overall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from coupler.model import Cluster, LoadedCluster, Node
    from coupler.workflows.workspace import Workspace


T = TypeVar("T")


@dataclass
class Run:
    """What the steps of one workflow share.

    `nodes` are those it is about, `lost` those that failed on the way, `files` what is to be in git, `commit` what is.
    """

    loaded: LoadedCluster
    nodes: tuple[Node, ...]
    workspace: Workspace
    scratch: Path
    connections: Connections
    progress: Progress
    dry_run: bool = False
    lost: dict[str, HostOutcome] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    commit: str = ""
    planned: bool = False

    @property
    def cluster(self) -> Cluster:
        """The cluster as cluster.yaml describes it."""
        return self.loaded.cluster

    @property
    def alive(self) -> tuple[Node, ...]:
        """The nodes on which no step has failed."""
        return tuple(node for node in self.nodes if node.name not in self.lost)

    @property
    def plans_changes(self) -> bool:
        """Whether this is a dry run of something that would publish or install: what follows cannot be looked at."""
        return self.dry_run and (self.planned or not self.commit)

    def record(self, outcome: HostOutcome) -> HostOutcome:
        """Tell the news of a host; one that failed takes no part in what follows."""
        if outcome.failed:
            self.lost[outcome.host] = outcome
        self.progress.host(outcome)
        return outcome

    def on_every_node(
        self, ask: Callable[[Node], HostOutcome], nodes: Sequence[Node] | None = None
    ) -> tuple[HostOutcome, ...]:
        """Call `ask` for every live node, or those, in parallel. A `CouplerError` becomes that host's outcome."""
        outcomes: dict[str, HostOutcome] = {}
        by_target = {target(node): node for node in (self.alive if nodes is None else nodes)}

        def one(where: Target) -> None:
            node = by_target[where]
            self.progress.host(HostOutcome(node.name, State.RUNNING))
            try:
                outcomes[node.name] = self.record(ask(node))
            except CouplerError as error:
                outcomes[node.name] = self.record(outcome_of(node.name, error))

        self.connections.everywhere(by_target, one)
        return tuple(outcomes[node.name] for node in self.nodes if node.name in outcomes)


class Step(Protocol):
    """One step of a workflow. It finds out by looking whether it is done, and changes nothing in a dry run."""

    title: str

    def run(self, run: Run) -> StepOutcome:
        """Do it, or say what would be done. Raises CouplerError where the workflow cannot go on."""


def execute(steps: Sequence[Step], run: Run) -> tuple[StepOutcome, ...]:
    """Go through the steps in order. Ends early when no node is left.

    Raises:
        CouplerError: a step could not be done for a reason that is no single host's.
    """
    outcomes: list[StepOutcome] = []
    for number, step in enumerate(steps, 1):
        run.progress.step(number, len(steps), step.title)
        try:
            outcome = step.run(run)
        except CouplerError as error:
            run.progress.finish(StepOutcome(step.title, State.FAILED, error.what))
            raise
        except BaseException as error:
            text = "interrupted" if isinstance(error, KeyboardInterrupt) else type(error).__name__
            run.progress.finish(StepOutcome(step.title, State.FAILED, text))
            raise
        run.progress.finish(outcome)
        run.planned = run.planned or outcome.state is State.PLANNED
        outcomes.append(outcome)
        if not run.alive:
            break
    return tuple(outcomes)


def exit_code(lost: Sequence[HostOutcome], of: int) -> ExitCode:
    """Return how a run ends: done; unreachable if no host was reached at all; otherwise 'a host failed'."""
    if not lost:
        return ExitCode.DONE
    if len(lost) == of and all(outcome.state is State.UNREACHABLE for outcome in lost):
        return ExitCode.UNREACHABLE
    return ExitCode.HOST_FAILED


def outcome_of(host: str, error: CouplerError) -> HostOutcome:
    """Return an error as the outcome of the host on which it happened."""
    state = State.UNREACHABLE if isinstance(error, UnreachableError) else State.FAILED
    text = error.summary
    return HostOutcome(host, state, text, error.next_step)


def hosts_step(title: str, hosts: tuple[HostOutcome, ...], text: str = "") -> StepOutcome:
    """Return the outcome of a step that consists of what happened on hosts."""
    return StepOutcome(title, overall(hosts), text, hosts)


def target(node: Node) -> Target:
    """Return where to reach a node over SSH."""
    return Target(node.name, node.ssh_address, node.ssh_port, node.ssh_user)


def access(cluster: Cluster, workspace: Workspace) -> Access:
    """Return how to log in to the nodes of a cluster."""
    return Access(
        known_hosts=workspace.known_hosts,
        private_key=cluster.ssh.private_key,
        more_known_hosts=(cluster.ssh.known_hosts,) if cluster.ssh.known_hosts else (),
        accept_new=cluster.ssh.host_keys is HostKeys.ACCEPT_NEW,
    )


def first_reached(nodes: Iterable[Node], ask: Callable[[Node], T]) -> T:
    """Return what `ask` returns for the first of these nodes, of which there is one, that can be reached.

    Raises:
        UnreachableError: none of them can; it is that of the first.
    """
    problem: UnreachableError | None = None
    for node in nodes:
        try:
            return ask(node)
        except UnreachableError as error:
            problem = problem or error
    assert problem  # noqa: S101 - there is one
    raise problem


def limited(cluster: Cluster, limit: Sequence[str]) -> tuple[Node, ...]:
    """Return the nodes named in `limit`, or all of them. Raises UsageError for a name that is no node's."""
    unknown = sorted(set(limit) - {node.name for node in cluster.nodes})
    if unknown:
        raise UsageError(
            f"no node is called {', '.join(unknown)}",
            why=f"cluster.yaml has {', '.join(node.name for node in cluster.nodes[:10])}"
            + (" …" if len(cluster.nodes) > 10 else ""),  # noqa: PLR2004 - enough to recognise the pattern
            next_step="correct --limit",
        )
    return tuple(node for node in cluster.nodes if not limit or node.name in limit)


def checked(node: Node, exit_status: int, errors: str) -> None:
    """Raise HostFailedError if a script on a node failed."""
    if exit_status:
        lines = [line for line in errors.splitlines() if line.strip()]
        no_sudo = any("sudo" in line for line in lines)
        raise HostFailedError(
            f"a script failed with exit code {exit_status}",
            why=lines[-1] if lines else "it printed nothing",
            next_step=f"give {node.ssh_user} passwordless sudo" if no_sudo else None,
            host=node.name,
        )
