"""What is to be published, and why: found out by looking, before anything is committed."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coupler.adapters.git import Repository
from coupler.workflows.changes import Change, changes, leap, summary

if TYPE_CHECKING:
    from collections.abc import Mapping

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

    `why` is its subject, empty where there is nothing to publish; `changes` is what it means for nodes. `replaces` are
    commits that nodes may be at and that `parent` does not follow: nodes take the new commit only because its signed
    message names them. `canary` is the commit that a few nodes try at the moment. `caution` is what the operator should
    know before it is committed.
    """

    parent: str | None
    files: Mapping[str, str]
    why: str
    changes: tuple[Change, ...] = ()
    replaces: tuple[str, ...] = ()
    canary: str | None = None
    caution: str = ""

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


def propose(repository: Repository, cluster: Cluster, files: Mapping[str, str], why: str = "") -> Proposal:
    """Return the commit that would publish `files`.

    `why` is the subject where something differs; without it, the subject says what.

    Raises:
        UnreachableError: the repository cannot be read.
    """
    heads = repository.heads(cluster.git.branch, canary_branch(cluster))
    parent, canary = heads.get(cluster.git.branch), heads.get(canary_branch(cluster))
    differing = {
        name: text for name, text in files.items() if not parent or repository.content(parent, name) != text.encode()
    }
    nodes_may_be_at = (repository.last_known(), canary)
    replaces = tuple(
        commit for commit in nodes_may_be_at if commit and parent and not repository.follows(parent, commit)
    )
    old = repository.content(parent, DOCUMENT) if parent else None
    before = old.decode(errors="replace") if old is not None else None
    differences = changes(before, files[DOCUMENT])
    versions = leap(before, files[DOCUMENT])
    caution = ""
    if versions:
        caution = f"Kubernetes goes from {versions[0]} to {versions[1]}: take one minor version at a time"
    signers = cluster.git.allowed_signers
    if not parent:
        why = why or "first document"
    elif differing:
        why = why or (summary(differences) if differences else f"change {' and '.join(differing)}")
    elif signers and not repository.is_signed_by(parent, signers):
        why = f"sign what {parent[:12]} holds: no allowed signer has"
    elif replaces:
        why = f"stay with what {parent[:12]} holds"
    else:
        why = ""
    return Proposal(parent, differing, why, differences, replaces, canary, caution)
