"""Publish the document: a signed commit in the cluster's git repository."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coupler.result import State, StepOutcome
from coupler.workflows.publication import canary_branch, propose, repository_of

if TYPE_CHECKING:
    from coupler.workflows.run import Run


class Publish:
    """Nodes get their configuration from git: what they should be is there, with its history, before they change."""

    title = "publish"

    def __init__(self, why: str = "", *, aside: bool = False) -> None:
        """`why` is the commit's subject. `aside`: on the branch for canaries, which other nodes do not look at."""
        self._why = why
        self._aside = aside

    def run(self, run: Run) -> StepOutcome:
        """Commit the files of the run, unless the branch already holds them."""
        run.workspace.prepare()
        repository = repository_of(run.cluster, run.workspace)
        branch, canary = run.cluster.git.branch, canary_branch(run.cluster)
        proposal = propose(repository, run.cluster, run.files, self._why)
        if not proposal.why:
            run.commit = proposal.parent or ""
            return StepOutcome(self.title, State.UNCHANGED, f"{branch} is at {run.commit[:12]}")
        caution = f"; CAUTION: {proposal.caution}" if proposal.caution else ""
        if run.dry_run:
            text = f"would commit to {repository.remote}: {proposal.why}{caution}"
            return StepOutcome(self.title, State.PLANNED, text)
        run.commit = repository.commit(proposal.files, proposal.message(run.cluster.name), proposal.parent)
        if self._aside:
            repository.push_aside(run.commit, canary)
        else:
            repository.push(run.commit)
            if proposal.canary:
                repository.delete(canary)
        signed = "signed commit" if repository.signing_key else "commit"
        where = canary if self._aside else branch
        return StepOutcome(self.title, State.DONE, f"{signed} {run.commit[:12]} on {where}: {proposal.why}{caution}")


class Promote:
    """What a few nodes have tried is for all: the branch moves to their commit."""

    title = "promote"

    def run(self, run: Run) -> StepOutcome:
        """Move the branch, if every node that was to try the commit is well."""
        branch = run.cluster.git.branch
        repository = repository_of(run.cluster, run.workspace)
        if run.plans_changes:
            return StepOutcome(self.title, State.PLANNED, f"would move {branch} to the commit")
        if run.lost:
            return StepOutcome(self.title, State.FAILED, f"{branch} stays where it is: {', '.join(run.lost)} failed")
        if repository.published() == run.commit:
            return StepOutcome(self.title, State.UNCHANGED, f"{branch} is at {run.commit[:12]}")
        if run.dry_run:
            return StepOutcome(self.title, State.PLANNED, f"would move {branch} to {run.commit[:12]}")
        repository.push(run.commit)
        repository.delete(canary_branch(run.cluster))
        return StepOutcome(self.title, State.DONE, f"{branch} is at {run.commit[:12]}")
