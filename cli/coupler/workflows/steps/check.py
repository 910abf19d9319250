"""Check the document before anything happens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coupler.cloudinit import check
from coupler.cloudinit.findings import size_findings
from coupler.cloudinit.grammar import Lineage
from coupler.errors import ConfigurationError, Finding, Severity
from coupler.model import Distribution
from coupler.render import render_boot_stub, render_document
from coupler.result import State, StepOutcome, count

if TYPE_CHECKING:
    from coupler.model import Cluster, LoadedCluster
    from coupler.workflows.run import Run

DOCUMENT = "cloud-config.yaml"
"""The name of the shared cloud-config, in the repository and in findings."""

BOOT_STUB = "the boot stub"
"""The name of the user-data, in findings. The document itself travels by git, and may be of any size."""


def check_document(loaded: LoadedCluster) -> tuple[str, tuple[Finding, ...]]:
    """Return the shared cloud-config and everything that is to be said about it and about cluster.yaml.

    Raises:
        ConfigurationError: the document cannot be made, or the nodes would refuse it.
    """
    document = render_document(loaded.cluster)
    # coreos-cloudinit calls the classic keys deprecated wherever they stand; here they are the point.
    said = (f for f in check(document, DOCUMENT, lineage(loaded.cluster)) if f.code != "deprecated-key")
    stub = size_findings(render_boot_stub(loaded.cluster).encode(), BOOT_STUB)
    findings = (*loaded.warnings, *said, *stub)
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    if errors:
        raise ConfigurationError(
            f"the nodes would refuse the document: {count(len(errors), 'error')}",
            next_step="correct what the findings name; `cluster render` prints the document",
            findings=tuple(errors),
        )
    return document, findings


def lineage(cluster: Cluster) -> Lineage:
    """Return which coreos-cloudinit reads the document on the nodes."""
    classic = cluster.os.distribution is Distribution.CONTAINER_LINUX
    return Lineage.COREOS if classic else Lineage.FLATCAR


class Check:
    """cluster.yaml was loaded without errors; the document that it becomes must be sound too."""

    title = "check"

    def run(self, run: Run) -> StepOutcome:
        """Render the document and check it."""
        run.document, findings = check_document(run.loaded)
        warnings = sum(finding.severity is Severity.WARNING for finding in findings)
        text = f"{run.loaded.path.name} is valid" + (f", {count(warnings, 'warning')}" if warnings else "")
        return StepOutcome(self.title, State.OK, text)
