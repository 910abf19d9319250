"""Findings about user-data: the real program's verdict, then the rules of `lint` for what that lets pass."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from coupler.cloudinit import lint
from coupler.cloudinit.decode import decode_strong
from coupler.cloudinit.outline import Outline
from coupler.cloudinit.parse import parse
from coupler.cloudinit.userdata import Format, format_of
from coupler.cloudinit.verdict import Line, validate
from coupler.cloudinit.yamlport import YamlError
from coupler.errors import Finding, Location, Severity, excerpt_of

if TYPE_CHECKING:
    from coupler.cloudinit.grammar import Lineage

VERDICTS = {
    "unrecognized key": "unknown-key",
    "deprecated key": "deprecated-key",
    "incorrect type": "wrong-type",
    "invalid value": "invalid-value",
    "content cannot be decoded": "undecodable-content",
    "file cannot be written": "read-only-path",
    "must be": "unknown-format",
    "discovery URL": "discovery-url",
    "write_files doesn't belong": "misplaced-write-files",
}
"""The codes of the real validator's lines, by how they begin. `yaml-syntax` and `refused` are of its verdict too."""

_TYPE_ERROR = re.compile(r"line (\d+): (.*)")


def findings(text: str, file: str, lineage: Lineage) -> list[Finding]:
    """Return the findings about user-data, sorted by place."""
    found = [*_verdict(text, file, lineage)]
    if format_of(text, lineage) is Format.CLOUD_CONFIG:
        try:
            outline = Outline(parse(text, lineage))
        except YamlError:
            outline = None
        if outline is not None:
            found += lint.lint(lint.Subject(text, file, lineage, outline))
    return sorted(found, key=lambda finding: (finding.location.line, finding.location.column, finding.code))


def _verdict(text: str, file: str, lineage: Lineage) -> list[Finding]:
    report = validate(text, lineage)
    if report.failure is None:
        return [_finding(line, text, file) for line in sorted(set(report.lines)) if _is_telling(line)]
    try:
        decode_strong(parse(text, lineage), lineage)
    except YamlError as error:
        errors = _TYPE_ERROR.findall(error.message)
        if errors:
            return [
                make(
                    "duplicate-key" if "already defined" in message else "refused",
                    Severity.ERROR,
                    message,
                    text,
                    file,
                    int(number),
                )
                for number, message in errors
            ]
        return [make("refused", Severity.ERROR, error.message, text, file, error.line)]
    return [make("refused", Severity.ERROR, f"the validator gives up: {report.failure}", text, file, 0)]


def _is_telling(line: Line) -> bool:
    """Return whether a line says anything: after a syntax error the validator adds one about the whole document."""
    return not (line.number == 0 and line.message == 'incorrect type for "" (want struct)')


def _finding(line: Line, text: str, file: str) -> Finding:
    code = next((code for words, code in VERDICTS.items() if line.message.startswith(words)), "yaml-syntax")
    return make(code, Severity(line.severity), line.message, text, file, line.number)


def make(code: str, severity: Severity, message: str, text: str, file: str, line: int) -> Finding:
    """Return a finding about a line; its column is where the line's text begins."""
    excerpt = excerpt_of(text, line) if line else ()
    source = excerpt[-1][1] if excerpt else ""
    column = len(source) - len(source.lstrip()) + 1
    return Finding(code, severity, message, Location(file, line, column), excerpt)
