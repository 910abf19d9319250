"""`cluster publish`: put the document into the repository, for every node or for a few first; or take it back."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coupler.adapters.ssh import Connections
from coupler.errors import UsageError
from coupler.result import HostOutcome, Json, Progress, State, StepOutcome, count
from coupler.workflows.publication import CLUSTER_FILE, DOCUMENT, canary_branch, repository_of
from coupler.workflows.run import Run, Step, access, execute, exit_code, limited
from coupler.workflows.steps.check import Check, CheckEarlier
from coupler.workflows.steps.health import Health
from coupler.workflows.steps.publish import Promote, Publish
from coupler.workflows.steps.pull import Pull
from coupler.workflows.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coupler.errors import ExitCode
    from coupler.model import Cluster, LoadedCluster, Node

_RECENT = 8
"""So many commits does an error name that somebody may have meant."""


@dataclass(frozen=True)
class PublishResult:
    """What became of `cluster publish`: its steps, and of the nodes that were to try the commit, those that failed."""

    cluster: Cluster
    commit: str
    steps: tuple[StepOutcome, ...]
    tried: tuple[Node, ...]
    lost: tuple[HostOutcome, ...]
    reverts: str = ""
    dry_run: bool = False

    @property
    def exit_code(self) -> ExitCode:
        """How the process ends."""
        return exit_code(self.lost, len(self.tried))

    @property
    def changed(self) -> bool:
        """Whether anything was changed anywhere."""
        return any(step.state is State.DONE for step in self.steps)

    def data(self) -> Json:
        """Return the answer as JSON-serialisable data."""
        return {
            "cluster": self.cluster.name,
            "dry_run": self.dry_run,
            "commit": self.commit,
            "reverts_to": self.reverts or None,
            "changed": self.changed,
            "steps": [step.data() for step in self.steps],
            "failed": [host.data() for host in self.lost],
        }

    def text(self) -> str:
        """Return what was done, who failed, and the next command."""
        lines = [f"cluster {self.cluster.name}: {self._headline()}"]
        for host in self.lost:
            lines.append(f"  {host.state}: {host.host}: {host.text}")
            if host.next_step:
                lines.append(f"    next: {host.next_step}")
        return "\n".join([*lines, f"next: {self._next()}"])

    def _headline(self) -> str:
        steps = {step.title: step for step in self.steps}
        published, branch = steps["publish"], self.cluster.git.branch
        if self.dry_run or published.state is State.UNCHANGED:
            return "; ".join(f"{step.title}: {step.state}: {step.text}" for step in self.steps if step.title != "check")
        if not self.tried:
            return published.text
        if "promote" in steps and steps["promote"].state is not State.FAILED:
            return f"{published.text}; {count(len(self.tried), 'node')} tried it, and it is on {branch}"
        return f"{published.text}; not every node that tried it is well, and {branch} stays where it is"

    def _next(self) -> str:
        if self.lost:
            return "mend what is named above and publish again; or take it back: cluster publish --revert HEAD"
        if self.reverts:
            copy = f"git -C .coupler/repository.git show {self.reverts[:12]}:{CLUSTER_FILE}"
            return f"put {CLUSTER_FILE} back too, or the next publish undoes this: {copy} > {CLUSTER_FILE}"
        if self.dry_run:
            return "cluster publish"
        return f"cluster status; nodes look every {self.cluster.git.interval}, or at once with cluster init"


def publish(
    loaded: LoadedCluster,
    progress: Progress,
    *,
    to: Sequence[str] = (),
    revert: str = "",
    dry_run: bool = False,
) -> PublishResult:
    """Publish what cluster.yaml becomes, or with `revert` what an earlier commit holds.

    With `to`, nodes by name or one percentage, these nodes try the commit first; the branch that all nodes follow
    moves to it only when they are well.

    Raises:
        UsageError: there is no such node or commit.
        CouplerError: the document would be refused by the nodes, or the repository cannot be read or pushed to.
    """
    cluster, workspace = loaded.cluster, Workspace.beside(loaded.path)
    canaries = chosen(cluster, to)
    earlier = _earlier(cluster, workspace, revert) if revert else ("", "")
    why = f"back to {earlier[0][:12]}: {earlier[1]}" if revert else ""
    steps: list[Step] = [CheckEarlier(earlier[0]) if revert else Check(), Publish(why, aside=bool(canaries))]
    if canaries:
        steps += [Pull(canary_branch(cluster)), Health(), Promote()]
    with workspace.scratch() as scratch, Connections(access(cluster, workspace)) as connections:
        run = Run(loaded, canaries or cluster.nodes, workspace, scratch, connections, progress, dry_run=dry_run)
        outcomes = execute(steps, run)
    lost = tuple(run.lost[node.name] for node in canaries if node.name in run.lost)
    return PublishResult(cluster, run.commit, outcomes, canaries, lost, earlier[0], dry_run)


def chosen(cluster: Cluster, to: Sequence[str]) -> tuple[Node, ...]:
    """Return the nodes that `to` names, or the percentage of nodes: first those that are no members of etcd.

    Raises:
        UsageError: there is no such node, or the percentage is none.
    """
    percentages = [word for word in to if word.endswith("%")]
    if not percentages:
        return limited(cluster, to) if to else ()
    share = re.fullmatch(r"([0-9]{1,3})%", percentages[0])
    if len(to) > 1 or not share or not 1 <= int(share[1]) <= 100:  # noqa: PLR2004 - per cent
        raise UsageError(
            f"--to {' '.join(to)} names no nodes",
            why="it takes names of nodes, or one percentage from 1% to 100%",
            next_step="cluster publish --to 10%",
        )
    wanted = math.ceil(len(cluster.nodes) * int(share[1]) / 100)
    members = {node.name for node in cluster.etcd_members}
    return tuple(sorted(cluster.nodes, key=lambda node: node.name in members)[:wanted])


def _earlier(cluster: Cluster, workspace: Workspace, name: str) -> tuple[str, str]:
    """Return hash and subject of the commit that `name` stands for.

    Raises:
        UsageError: the branch has no such commit, or it holds no document.
    """
    workspace.prepare()
    repository = repository_of(cluster, workspace)
    head = repository.published()
    commit = repository.commit_of(name) if head else None
    if not head or not commit or not repository.follows(head, commit) or not repository.content(commit, DOCUMENT):
        recent = repository.history(head, _RECENT) if head else []
        raise UsageError(
            f"the branch {cluster.git.branch} has no commit '{name}' with a document",
            why="its newest are\n" + "\n".join(f"    {hash_[:12]} {subject}" for hash_, subject in recent)
            if recent
            else "nothing is published yet",
            next_step="cluster publish --revert COMMIT, or HEAD~1 for the one before the newest",
        )
    return repository.history(commit, 1)[0]
