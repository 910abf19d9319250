"""`cluster remove`: take out of Kubernetes and etcd what cluster.yaml gives a node no longer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic_core import PydanticCustomError

from coupler.adapters.ssh import Connections
from coupler.errors import CouplerError, UsageError
from coupler.model.fields import name_of
from coupler.result import Progress, State, StepOutcome, Text
from coupler.workflows.membership import Membership
from coupler.workflows.run import Run, Step, access, checked, execute, first_reached, target
from coupler.workflows.script import Answer, script
from coupler.workflows.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from coupler.adapters.etcd import Member
    from coupler.model import LoadedCluster, Node

_PATIENCE = 300  # seconds for its pods to end


def remove(loaded: LoadedCluster, name: str, confirm: Callable[[str], None], progress: Progress) -> Text:
    """Take a node out that cluster.yaml does not name, or out of etcd where it does not make it a member.

    Its pods move first, while it still runs. `confirm` is asked before, with a question; it raises what ends the verb.

    Raises:
        UsageError: cluster.yaml still makes the node a member of etcd.
        CouplerError: no control node answers; etcd or Kubernetes refuse it.
    """
    cluster = loaded.cluster
    try:
        name_of(name)
    except PydanticCustomError as error:
        raise UsageError(f"{name!r} is no name of a node", why=error.message(), next_step="cluster nodes") from error
    known = next((node for node in cluster.nodes if node.name == name), None)
    if known and known in cluster.etcd_members:
        raise UsageError(
            f"cluster.yaml has {name}, as a member of etcd",
            why="cluster.yaml says what is to be there, and `cluster init` would bring it back",
            next_step=f"delete the row of {name}, or take the role from it; run cluster init; then this again",
        )
    confirm(f"Take {name} out of {'etcd' if known else 'Kubernetes and etcd'}?")
    steps: list[Step] = [] if known or not cluster.kubernetes.enabled else [_FromKubernetes(name)]
    steps.append(_FromEtcd(name))
    workspace = Workspace.beside(loaded.path)
    with workspace.scratch() as scratch, Connections(access(cluster, workspace)) as connections:
        run = Run(loaded, cluster.nodes, workspace, scratch, connections, progress)
        outcomes = execute(steps, run)
    changed = any(outcome.state is State.DONE for outcome in outcomes)
    lines = [f"{name} is taken out" if changed else f"{name}: unchanged"]
    lines += [f"  {outcome.title}: {outcome.text}" for outcome in outcomes]
    if changed and not known:
        lines.append(f"next: switch {name} off, or install it anew: what it has of the cluster stays on its disk")
    payload = {"node": name, "changed": changed, "steps": [outcome.data() for outcome in outcomes]}
    return Text("\n".join(lines), payload)


class _FromKubernetes:
    """Pods move away, then the node is deleted: a node that does not answer any more is deleted at once."""

    title = "kubernetes"

    def __init__(self, name: str) -> None:
        self._name = name

    def run(self, run: Run) -> StepOutcome:
        through, answer = first_reached(run.cluster.control_nodes, lambda node: (node, self._ask(run, node, "look")))
        if answer.one("kubectl"):
            theirs = f"kubectl drain {self._name}, then kubectl delete node {self._name}"
            return StepOutcome(self.title, State.SKIPPED, f"the control nodes have no kubectl; with yours: {theirs}")
        if answer.one("node") == "absent":
            return StepOutcome(self.title, State.UNCHANGED, "it has no such node")
        ready = answer.one("node") == "Ready"
        if ready:
            run.progress.note(f"the pods of {self._name} move to other nodes")
            self._ask(run, through, "drain")
        self._ask(run, through, "delete")
        return StepOutcome(self.title, State.DONE, "drained and deleted" if ready else "deleted; it was not Ready")

    def _ask(self, run: Run, through: Node, what: str) -> Answer:
        variables = {"WHAT": what, "NODE": self._name, "PATIENCE": str(_PATIENCE)}
        completed = run.connections.run(target(through), script("node", variables), timeout=_PATIENCE + 60)
        checked(through, completed.exit_status, completed.stderr)
        answer = Answer(completed.stdout)
        if problem := answer.one("problem"):
            describe = f"kubectl describe node {self._name}"
            raise CouplerError(
                f"Kubernetes did not let {self._name} go",
                why=problem,
                next_step=f"mend that and run the same again; cluster kubeconfig, then: {describe}",
            )
        return answer


class _FromEtcd:
    """Its member is taken out where those that are left can agree."""

    title = "etcd"

    def __init__(self, name: str) -> None:
        self._name = name

    def run(self, run: Run) -> StepOutcome:
        return first_reached(run.cluster.etcd_members, lambda node: self._through(run, node))

    def _through(self, run: Run, node: Node) -> StepOutcome:
        etcd = Membership(run.connections, run.cluster, node, run.progress.note)
        members = etcd.members()
        kept = {run.cluster.peer_url(member) for member in run.cluster.etcd_members}
        gone = [member for member in members if member.name == self._name and member.peer_url not in kept]
        if not gone:
            return StepOutcome(self.title, State.UNCHANGED, self._others(members, kept))
        if not etcd.quorum(members).after_removing(gone):
            raise CouplerError(
                f"{self._name} cannot be taken out of etcd now",
                why="too few of those that would be left are healthy to agree",
                next_step="cluster status says what is wrong with them; mend that first",
            )
        for member in gone:
            etcd.remove(member)
        return StepOutcome(self.title, State.DONE, "its member is removed")

    def _others(self, members: Sequence[Member], kept: set[str]) -> str:
        others = [member.name or member.peer_url for member in members if member.peer_url not in kept]
        more = f"; that cluster.yaml does not name: {', '.join(others)}" if others else ""
        return f"it has no such member{more}"
