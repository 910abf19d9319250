"""What is to be published, and why: found out by looking, before anything is committed."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coupler.adapters.git import Repository
from coupler.workflows.changes import Change, changes, summary

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from coupler.model import Cluster
    from coupler.workflows.workspace import Workspace

DOCUMENT = "cloud-config.yaml"
"""The name of the shared cloud-config, in the repository and in findings."""

CLUSTER_FILE = "cluster.yaml"
"""What the document was made from, beside it in the repository."""

_SUBJECT_WIDTH = 100
_MOST_LISTED = 40


@dataclass(frozen=True)
class Proposal:
    """A commit to be made: on top of `parent`, with the `files` that differ from it.

    `why` is its subject, `changes` what it means for nodes. `replaces` are commits that nodes may be at and that
    `parent` does not follow: nodes take the new commit only because its signed message names them.
    """

    parent: str | None
    files: Mapping[str, str]
    why: str
    changes: tuple[Change, ...] = ()
    replaces: tuple[str, ...] = ()

    def message(self, cluster: str) -> str:
        """Return the commit's message: a subject, a line for each change with the roles that it concerns, trailers."""
        subject = f"{cluster}: {self.why}"
        if len(subject) > _SUBJECT_WIDTH:
            subject = f"{subject[: _SUBJECT_WIDTH - 2]} …"
        body = [_line(change) for change in self.changes[:_MOST_LISTED]]
        if len(self.changes) > _MOST_LISTED:
            body.append(f"and {len(self.changes) - _MOST_LISTED} more")
        trailers = [f"Coupler-Replaces: {commit}" for commit in self.replaces]
        return "\n\n".join("\n".join(part) for part in ([subject], body, trailers) if part)


def _line(change: Change) -> str:
    concerned = f" ({', '.join(change.roles)})" if change.roles else ""
    return f"{change.kind}: {change.what} {change.name}{concerned}"


def repository_of(cluster: Cluster, workspace: Workspace) -> Repository:
    """Return the repository to which the operator publishes."""
    key, known = cluster.ssh.private_key, cluster.ssh.known_hosts
    ssh = f"ssh -o BatchMode=yes{f' -i {shlex.quote(str(key))}' if key else ''}"
    if known:
        files = f'UserKnownHostsFile=~/.ssh/known_hosts "{known}"'
        ssh += f" -o {shlex.quote(files)}"
    return Repository(
        workspace.repository,
        str(cluster.git.push or cluster.git.repository),
        cluster.git.branch,
        Path(cluster.git.signing_key) if cluster.git.signing_key else None,
        {"GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND", ssh)},
    )


def canary_branch(cluster: Cluster) -> str:
    """Return the branch that carries a commit which a few nodes try for the others."""
    return f"{cluster.git.branch}-canary"


def propose(repository: Repository, cluster: Cluster, files: Mapping[str, str], why: str = "") -> Proposal | None:
    """Return the commit that would publish `files`, or None where the branch has them and nodes will take it.

    `why` is the subject where something differs; without it, the subject says what.

    Raises:
        UnreachableError: the repository cannot be read.
    """
    parent = repository.published()
    differing = {
        name: text for name, text in files.items() if not parent or repository.content(parent, name) != text.encode()
    }
    replaces = tuple(_replaced(repository, cluster, parent))
    old = repository.content(parent, DOCUMENT) if parent else None
    differences = changes(old.decode(errors="replace") if old is not None else None, files[DOCUMENT])
    if differing:
        first = "first document" if old is None else ""
        others = f"change {' and '.join(differing)}"
        return Proposal(
            parent, differing, why or first or (summary(differences) if differences else others), differences, replaces
        )
    if parent and cluster.git.allowed_signers and not repository.is_signed_by(parent, cluster.git.allowed_signers):
        return Proposal(parent, {}, f"sign what {parent[:12]} holds: no allowed signer has", (), replaces)
    if replaces:
        return Proposal(parent, {}, f"stay with what {parent[:12] if parent else ''} holds", (), replaces)
    return None


def _replaced(repository: Repository, cluster: Cluster, parent: str | None) -> Iterator[str]:
    """Yield commits of ours that the branch does not follow: it was rewound, or a canary came to nothing."""
    for commit in (repository.last_known(), repository.published(canary_branch(cluster))):
        if commit and parent and not repository.follows(parent, commit):
            yield commit
