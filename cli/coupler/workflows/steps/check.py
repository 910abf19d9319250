"""Check the document before anything happens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coupler.cloudinit import check
from coupler.cloudinit.grammar import Lineage
from coupler.errors import ConfigurationError, Finding, Severity
from coupler.model import Distribution
from coupler.render import render_document
from coupler.result import State, StepOutcome, count
from coupler.workflows.publication import CLUSTER_FILE, DOCUMENT, repository_of

if TYPE_CHECKING:
    from coupler.model import Cluster, LoadedCluster
    from coupler.workflows.run import Run


def check_document(loaded: LoadedCluster) -> tuple[str, tuple[Finding, ...]]:
    """Return the shared cloud-config and everything that is to be said about it and about cluster.yaml.

    Raises:
        ConfigurationError: the document cannot be made, or the nodes would refuse it.
    """
    document = render_document(loaded.cluster)
    return document, (*loaded.warnings, *checked(document, loaded.cluster))


def checked(document: str, cluster: Cluster) -> tuple[Finding, ...]:
    """Return everything that is to be said about a document for the nodes of a cluster.

    Raises:
        ConfigurationError: the nodes would refuse it.
    """
    # coreos-cloudinit calls the classic keys deprecated wherever they stand; here they are the point.
    findings = tuple(f for f in check(document, DOCUMENT, lineage(cluster)) if f.code != "deprecated-key")
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    if errors:
        raise ConfigurationError(
            f"the nodes would refuse the document: {count(len(errors), 'error')}",
            next_step="correct what the findings name; `cluster render` prints the document",
            findings=tuple(errors),
        )
    return findings


def lineage(cluster: Cluster) -> Lineage:
    """Return which coreos-cloudinit reads the document on the nodes."""
    classic = cluster.os.distribution is Distribution.CONTAINER_LINUX
    return Lineage.COREOS if classic else Lineage.FLATCAR


class Check:
    """cluster.yaml was loaded without errors; the document that it becomes must be sound too."""

    title = "check"

    def run(self, run: Run) -> StepOutcome:
        """Render the document and check it."""
        document, findings = check_document(run.loaded)
        run.files = {DOCUMENT: document, CLUSTER_FILE: run.loaded.text}
        warnings = sum(finding.severity is Severity.WARNING for finding in findings)
        text = f"{run.loaded.path.name} is valid" + (f", {count(warnings, 'warning')}" if warnings else "")
        return StepOutcome(self.title, State.OK, text)


class CheckEarlier:
    """What an earlier commit holds is checked by the rules of today."""

    title = "check"

    def __init__(self, commit: str) -> None:
        self._commit = commit

    def run(self, run: Run) -> StepOutcome:
        """Take the files of the commit and check its document."""
        repository = repository_of(run.cluster, run.workspace)
        found = {name: repository.content(self._commit, name) for name in (DOCUMENT, CLUSTER_FILE)}
        run.files = {name: content.decode(errors="replace") for name, content in found.items() if content is not None}
        checked(run.files[DOCUMENT], run.cluster)
        return StepOutcome(self.title, State.OK, f"the document of {self._commit[:12]} is valid")
