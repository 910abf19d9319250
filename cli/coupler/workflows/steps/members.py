"""Make members of etcd of the nodes that cannot become so by themselves: new ones, and those that lost their data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coupler.errors import CouplerError, HostFailedError
from coupler.model.health import components
from coupler.model.system import Distribution
from coupler.result import HostOutcome, State, StepOutcome, json_object
from coupler.workflows.membership import Membership
from coupler.workflows.run import Run, checked, hosts_step, target
from coupler.workflows.script import Answer, script
from coupler.workflows.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coupler.adapters.etcd import Member
    from coupler.model import Node

_PATIENCE = 120  # seconds until a member that has been announced is healthy


@dataclass(frozen=True)
class _Standing:
    """What a node says: why its member may not start, empty where it may; whether it fails to, or still has no vote."""

    held: str
    failing: bool
    learner: bool


class Members:
    """One node after another: its former self is taken out, it is announced, it starts, and gets its vote.

    From etcd 3.4 on the others can agree at every moment: the new one votes only when it knows what they know. Which
    nodes have to be announced they find out themselves, before etcd starts (see the script coupler-etcd-member).
    """

    title = "members"

    def run(self, run: Run) -> StepOutcome:
        """Ask every node that is to have a member whether it has one, and see to those that cannot."""
        nodes = [node for node in run.alive if node in run.cluster.etcd_members]
        if run.plans_changes:
            return StepOutcome(self.title, State.PLANNED, "would make new nodes members of etcd")
        turns = Turns("made a member of etcd")

        def ask(node: Node) -> HostOutcome:
            standing = _look(run, node)
            if standing.failing and not standing.held:
                _refuse_removed(run, node)
            if not standing.held and not standing.learner:
                return HostOutcome(node.name, State.UNCHANGED)
            if run.dry_run:
                return HostOutcome(node.name, State.PLANNED, standing.held or "would give its member a vote")
            with turns.turn_of(node):
                return HostOutcome(node.name, State.DONE, _join(run, node))

        outcomes = run.on_every_node(ask, nodes)
        joined = [outcome.host for outcome in outcomes if outcome.state is State.DONE]
        return hosts_step(self.title, outcomes, f"new in etcd: {', '.join(joined)}" if joined else "")


def _unit(run: Run) -> str:
    return next(component.unit for component in components(run.cluster) if component.name == "etcd")


def _look(run: Run, node: Node) -> _Standing:
    text = script("member", {"UNIT": _unit(run), "SCHEME": run.cluster.etcd.scheme})
    completed = run.connections.run(target(node), text)
    checked(node, completed.exit_status, completed.stderr)
    answer = Answer(completed.stdout)
    learner = bool(json_object(answer.one("status")).get("isLearner"))
    return _Standing(answer.one("held"), bool(answer.one("failing")), learner)


def _join(run: Run, node: Node) -> str:
    """Make `node` a member with a vote, whatever of that is done already, and return what was done.

    Raises:
        HostFailedError: with it as a member the others could no longer agree.
        CouplerError: etcd refuses it, or its member does not start.
    """

    def tell(text: str) -> None:
        run.progress.host(HostOutcome(node.name, State.RUNNING, text))

    etcd = Membership(run.connections, run.cluster, node, tell)
    members, own = etcd.members(), run.cluster.peer_url(node)
    former = [*_lost(run, members), *(m for m in members if m.started and m.name == node.name and m.peer_url != own)]
    if former and not etcd.quorum(members).after_removing(former):
        raise _no_quorum(node, f"without {', '.join(member.name for member in former)}")
    for member in former:
        tell(f"the former member {member.name} is taken out")
        etcd.remove(member)
    announced = any(m.peer_url == own and m not in former for m in members)
    if not announced:
        left = [m for m in members if m not in former]
        alone = sum(not m.learner for m in left) == 1  # the second one can only be added before it votes
        if not etcd.has_learners and not alone and not etcd.quorum(left).after_adding():
            raise _no_quorum(node, "with one more that has not started yet")
        tell("it is announced")
        etcd.add(node)
    if _look(run, node).held:
        command = f"systemctl reset-failed {_unit(run)}; systemctl restart --no-block {_unit(run)}"
        run.connections.run(target(node), command)
    tell("its member starts")
    etcd.await_start(node, _PATIENCE)
    for member in etcd.members():
        if member.peer_url == own and member.learner:
            etcd.promote(member)
    return "in place of its lost member" if any(m.name == node.name for m in former) else "a new member"


def _lost(run: Run, members: Iterable[Member]) -> list[Member]:
    """Return the members whose nodes say that their data is gone: while there are such, etcd takes no new ones."""
    nodes = {run.cluster.peer_url(node): node for node in run.cluster.etcd_members}

    def is_held(node: Node) -> bool:
        try:
            return bool(_look(run, node).held)
        except CouplerError:
            return False

    return [m for m in members if m.started and m.peer_url in nodes and is_held(nodes[m.peer_url])]


def _refuse_removed(run: Run, node: Node) -> None:
    """Raise HostFailedError where a member fails for it is none any more; why else it fails its health tells."""
    try:
        etcd = Membership(run.connections, run.cluster, node, run.progress.note)
        members = etcd.members()
    except CouplerError:
        return
    if any(member.peer_url == run.cluster.peer_url(node) for member in members):
        return
    data = "/var/lib/etcd2" if run.cluster.os.distribution is Distribution.CONTAINER_LINUX else "/var/lib/etcd"
    away = f"sudo mv {data}/member {data}/member.$(date +%s)"
    raise HostFailedError(
        "its member was taken out of etcd, and its data with it",
        why=f"what is in {data} is of no use to a new member",
        next_step=f"ssh {node.ssh_user}@{node.ssh_address} '{away}', then run `cluster init` again",
        host=node.name,
    )


def _no_quorum(node: Node, when: str) -> HostFailedError:
    return HostFailedError(
        "it cannot become a member of etcd now",
        why=f"{when} too few of the others are healthy to agree",
        next_step="cluster status says what is wrong with them; mend that, then run `cluster init` again",
        host=node.name,
    )
