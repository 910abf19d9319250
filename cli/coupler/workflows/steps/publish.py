"""Publish the document: a signed commit in the cluster's git repository."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from coupler.adapters.git import Repository
from coupler.result import State, StepOutcome
from coupler.workflows.steps.check import DOCUMENT

if TYPE_CHECKING:
    from coupler.model import Cluster
    from coupler.workflows.run import Run
    from coupler.workflows.workspace import Workspace

CLUSTER_FILE = "cluster.yaml"


def repository_of(cluster: Cluster, workspace: Workspace) -> Repository:
    """Return the repository to which the operator publishes."""
    key = cluster.ssh.private_key
    ssh = f"ssh -o BatchMode=yes{f' -i {key}' if key else ''}"
    return Repository(
        workspace.repository,
        str(cluster.git.push or cluster.git.repository),
        cluster.git.branch,
        Path(cluster.git.signing_key) if cluster.git.signing_key else None,
        {"GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND", ssh)},
    )


class Publish:
    """Nodes get their configuration from git: what they should be is there, with its history, before they change."""

    title = "publish"

    def run(self, run: Run) -> StepOutcome:
        """Commit the document and cluster.yaml, unless the branch already holds them."""
        run.workspace.prepare()
        repository = repository_of(run.cluster, run.workspace)
        files = {DOCUMENT: run.document, CLUSTER_FILE: run.loaded.text}
        parent = repository.published()
        changed = [
            name for name, text in files.items() if not parent or repository.content(parent, name) != text.encode()
        ]
        if parent and not changed:
            run.commit = parent
            return StepOutcome(self.title, State.UNCHANGED, f"{run.cluster.git.branch} is at {parent[:12]}")
        if run.dry_run:
            return StepOutcome(
                self.title, State.PLANNED, f"would commit {' and '.join(changed)} to {repository.remote}"
            )
        message = (
            f"{run.cluster.name}: change {' and '.join(changed)}" if parent else f"{run.cluster.name}: first document"
        )
        run.commit = repository.publish(files, message, parent)
        signed = "signed commit" if repository.signing_key else "commit"
        return StepOutcome(self.title, State.DONE, f"{signed} {run.commit[:12]} on {run.cluster.git.branch}")
