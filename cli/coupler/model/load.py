"""cluster.yaml to a `Cluster`: read, parse, validate, apply the rules; every finding at once, sorted by line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import ValidationError

from coupler.errors import ConfigurationError, Finding, Severity
from coupler.model.cluster import Cluster
from coupler.model.explain import explain
from coupler.model.files import Reading
from coupler.model.problem import kind_of
from coupler.model.rules import issues_of
from coupler.model.source import Source, SourceError, parse, read_text

if TYPE_CHECKING:
    from pathlib import Path

    from coupler.model.rules.issue import Issue

FILE_NAME = "cluster.yaml"


@dataclass(frozen=True)
class LoadedCluster:
    """A cluster, the warnings about it, and the file that it came from, with the place of every key in it."""

    cluster: Cluster
    warnings: tuple[Finding, ...]
    path: Path
    source: Source

    @property
    def text(self) -> str:
        """The text of the file."""
        return self.source.text


def find_cluster_file(start: Path) -> Path:
    """Return the cluster.yaml in the folder `start` or the nearest above it. Raises ConfigurationError."""
    start = start.resolve()
    for folder in (start, *start.parents):
        if (folder / FILE_NAME).is_file():
            return folder / FILE_NAME
    raise ConfigurationError(
        f"there is no {FILE_NAME} in {start} or above it",
        next_step="write one: cluster new NAME; or name one: --file PATH",
    )


def load_cluster(path: Path) -> LoadedCluster:
    """Return the cluster that the file describes. Raises ConfigurationError with everything that is wrong with it."""
    try:
        text = read_text(path)
        source = parse(text, str(path))
        reading = Reading(path.absolute().parent, source)
        cluster = _validate(source, reading)
    except SourceError as error:
        raise _wrong(path, list(error.findings)) from None
    findings = [_finding(source, issue) for issue in issues_of(cluster)] + reading.findings
    if any(finding.severity is Severity.ERROR for finding in findings):
        raise _wrong(path, findings)
    return LoadedCluster(cluster, tuple(_sorted(findings, source.file)), path, source)


def _validate(source: Source, reading: Reading) -> Cluster:
    if source.data is None:
        hint = "`cluster new NAME` writes one with comments"
        raise SourceError(source.finding("empty-file", Severity.ERROR, (), "the file is empty", hint))
    if not isinstance(source.data, dict):
        message = f"expected keys such as `name:`, found {kind_of(source.data)}"
        raise SourceError(source.finding("not-a-mapping", Severity.ERROR, (), message))
    try:
        return Cluster.model_validate(source.data, context=reading)
    except ValidationError as error:
        findings = [explain(source, detail) for detail in error.errors(include_url=False)]
        raise SourceError(*findings, *reading.findings) from None


def _finding(source: Source, issue: Issue) -> Finding:
    return source.finding(issue.code, issue.severity, issue.path, issue.message, issue.hint)


def _sorted(findings: list[Finding], file: str) -> list[Finding]:
    def place(finding: Finding) -> tuple[bool, str, int, int, str]:
        where = finding.location
        return where.file != file, where.file, where.line, where.column, finding.code

    return sorted(findings, key=place)


def _wrong(path: Path, findings: list[Finding]) -> ConfigurationError:
    errors = sum(finding.severity is Severity.ERROR for finding in findings)
    what = f"{path} has {errors} {'error' if errors == 1 else 'errors'}"
    return ConfigurationError(
        what, next_step="correct the file and try again", findings=tuple(_sorted(findings, str(path)))
    )
