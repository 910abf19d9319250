"""`cluster diff`: cluster.yaml beside the published document, and the published document beside live nodes."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coupler.adapters.ssh import Connections
from coupler.cloudinit.session import UnreadableError
from coupler.errors import CouplerError, ExitCode
from coupler.result import Json, count, table
from coupler.workflows import drift
from coupler.workflows.changes import Change, changes
from coupler.workflows.machine import machine
from coupler.workflows.preview import node_called
from coupler.workflows.publication import DOCUMENT, repository_of
from coupler.workflows.run import access, exit_code, outcome_of, target
from coupler.workflows.steps.check import check_document, lineage
from coupler.workflows.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coupler.adapters.ssh import Target
    from coupler.model import LoadedCluster
    from coupler.result import HostOutcome
    from coupler.workflows.drift import Drift


@dataclass(frozen=True)
class DocumentDiff:
    """What the document of cluster.yaml changes in the published one; `published` is its commit, None where none is."""

    cluster: str
    published: str | None
    changes: tuple[Change, ...]
    diff: tuple[str, ...]

    @property
    def exit_code(self) -> ExitCode:
        """Done where both are the same."""
        return ExitCode.DIFFERS if self.diff else ExitCode.DONE

    def data(self) -> Json:
        """Return the answer as JSON-serialisable data."""
        return {
            "cluster": self.cluster,
            "published": self.published,
            "same": not self.diff,
            "changes": [change.data() for change in self.changes],
            "diff": list(self.diff),
        }

    def text(self) -> str:
        """Return the entries that differ, then the lines."""
        if not self.diff:
            return f"cluster {self.cluster}: cluster.yaml is what is published as commit {str(self.published)[:12]}"
        beside = f"published commit {self.published[:12]}" if self.published else "nothing published yet"
        rows = [(c.kind, c.what, c.name, ", ".join(f"role {role}" for role in c.roles)) for c in self.changes]
        summary = table(("CHANGE", "WHAT", "NAME", "ONLY ON"), rows) if rows else "only comments or order differ"
        head = f"cluster {self.cluster}: cluster.yaml beside {beside}"
        return "\n".join([head, "", summary, "", *self.diff, "", "next: cluster init --dry-run"])


@dataclass(frozen=True)
class ClusterDrift:
    """How nodes differ from the published document; `lost` are those that could not be asked."""

    cluster: str
    published: str
    nodes: tuple[str, ...]
    drifts: dict[str, Drift]
    lost: dict[str, HostOutcome]

    @property
    def exit_code(self) -> ExitCode:
        """Done where every node answered and is as published."""
        if self.lost:
            return exit_code(tuple(self.lost.values()), len(self.nodes))
        return ExitCode.DIFFERS if any(one.differences for one in self.drifts.values()) else ExitCode.DONE

    def data(self) -> Json:
        """Return the answer as JSON-serialisable data."""
        return {
            "cluster": self.cluster,
            "published": self.published,
            "nodes": [self.drifts[name].data() for name in self.nodes if name in self.drifts],
            "failed": [outcome.data() for outcome in self.lost.values()],
        }

    def text(self) -> str:
        """Return each node with what differs there."""
        lines = [f"cluster {self.cluster}: nodes beside published commit {self.published[:12]}"]
        for name in self.nodes:
            lines += self._node(name)
        if any(one.differences for one in self.drifts.values()):
            lines += [
                "next: cluster init, or a reboot, writes files of the document again where they were changed;",
                "  what the document does not have, such as drop-ins made by hand, stays until somebody removes it",
            ]
        return "\n".join(lines)

    def _node(self, name: str) -> list[str]:
        if name in self.lost:
            outcome = self.lost[name]
            next_step = [f"  next: {outcome.next_step}"] if outcome.next_step else []
            return [f"{name}: {outcome.state}: {outcome.text}", *next_step]
        found = self.drifts[name]
        waits = f"; {count(len(found.waiting), 'program')} not there yet" if found.waiting else ""
        lines = [f"{name}: {count(len(found.differences), 'difference') if found.differences else 'same'}{waits}"]
        for difference in found.differences:
            lines.append(f"  {difference.what} {difference.name} {difference.text}")
            lines += [f"    {line}" for line in difference.diff]
        return lines


def diff_document(loaded: LoadedCluster) -> DocumentDiff:
    """Compare what cluster.yaml renders to with what is published.

    Raises:
        ConfigurationError: the nodes would refuse the document.
        UnreachableError: the repository does not answer.
    """
    new, _ = check_document(loaded)
    commit, old = _published(loaded)
    lines = difflib.unified_diff(
        (old or "").splitlines(), new.splitlines(), f"published/{DOCUMENT}", f"rendered/{DOCUMENT}", lineterm=""
    )
    return DocumentDiff(loaded.cluster.name, commit, changes(old, new), tuple(lines))


def diff_nodes(loaded: LoadedCluster, names: Sequence[str]) -> ClusterDrift:
    """Compare nodes, without names all of them, with what is published. Changes nothing on them.

    Raises:
        UsageError: a name is no node's.
        UnreachableError: the repository does not answer.
        CouplerError: nothing is published yet, or something that no node would take.
    """
    cluster = loaded.cluster
    nodes = tuple(node_called(cluster, name) for name in dict.fromkeys(names)) if names else cluster.nodes
    commit, document = _published(loaded)
    if not commit or document is None:
        raise CouplerError("nothing is published yet", next_step="cluster init")
    try:
        machine(document, lineage(cluster))
    except UnreadableError as error:
        raise CouplerError(f"commit {commit[:12]} is no document that a node takes", why=str(error)) from error
    drifts: dict[str, Drift] = {}
    lost: dict[str, HostOutcome] = {}
    by_target = {target(node): node for node in nodes}
    with Connections(access(cluster, Workspace.beside(loaded.path))) as connections:

        def ask(where: Target) -> None:
            node = by_target[where]
            try:
                drifts[node.name] = drift.ask(connections, node, document, lineage(cluster), commit)
            except CouplerError as error:
                lost[node.name] = outcome_of(node.name, error)

        connections.everywhere(by_target, ask)
    return ClusterDrift(cluster.name, commit, tuple(node.name for node in nodes), drifts, lost)


def _published(loaded: LoadedCluster) -> tuple[str | None, str | None]:
    """Return the published commit and its document; None where there is none."""
    workspace = Workspace.beside(loaded.path)
    workspace.prepare()
    repository = repository_of(loaded.cluster, workspace)
    commit = repository.published()
    content = repository.content(commit, DOCUMENT) if commit else None
    return commit, None if content is None else content.decode(errors="replace")
