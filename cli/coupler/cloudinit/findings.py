"""Findings about user-data: the real program's verdict, then the rules of `lint` for what that lets pass.

Of a multipart message each cloud-config is examined, although the real `-validate` passes over it: on a node one that
cannot be read stops them all.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from coupler.cloudinit.decode import decode_strong
from coupler.cloudinit.golang import to_text
from coupler.cloudinit.lint import lint
from coupler.cloudinit.outline import Outline
from coupler.cloudinit.parse import parse
from coupler.cloudinit.subject import Subject
from coupler.cloudinit.userdata import Format, PartsError, decompress, format_of, parts_of
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


_SYNTAX = "yaml-syntax"
_NO_NEWLINE = "no-final-newline"
"""Says nothing of a part of a message: the newline before a boundary belongs to the boundary."""

_LIMITS = (("EC2", 16), ("Azure, DigitalOcean and OpenStack", 64), ("GCE", 256))
"""How many KiB of user-data a platform takes."""

_KIB = 1024
_LEFT_ALONE = {
    Format.EMPTY: "there is nothing in it, and nothing is done",
    Format.SCRIPT: "it is a script: it is run, and not examined",
    Format.IGNITION: "it is an Ignition config, which coreos-cloudinit leaves alone",
}


def findings_of_data(data: bytes, file: str, lineage: Lineage) -> list[Finding]:
    """Return the findings about user-data as a data source has it: it may be compressed, and too large."""
    plain, problem = decompress(data)
    found = findings(to_text(plain), file, lineage)
    if problem is not None:
        message = f"the gzip is damaged ({problem}): coreos-cloudinit goes on with what it could read"
        found.insert(0, Finding("broken-gzip", Severity.ERROR, message, Location(file)))
    return [*found, *size_findings(data, file)]


def size_findings(data: bytes, file: str) -> list[Finding]:
    """Return the finding about user-data that is larger than a platform takes."""
    small = [f"{platform} {size} KiB" for platform, size in _LIMITS if len(data) > size * _KIB]
    if not small:
        return []
    message = f"{len(data)} bytes are more than some platforms take as user-data: {', '.join(small)}"
    hint = "keep the document in git and give the machine a boot stub (`cluster render --boot-stub`), or compress it"
    return [Finding("user-data-size", Severity.INFO, message, Location(file), hint=hint)]


def findings(text: str, file: str, lineage: Lineage) -> list[Finding]:
    """Return the findings about user-data, sorted by place."""
    kind = format_of(text, lineage)
    if kind in _LEFT_ALONE:
        found = [Finding("nothing-to-check", Severity.INFO, _LEFT_ALONE[kind], Location(file))]
        return [*found, *_script(text, file)] if kind is Format.SCRIPT else found
    if kind is Format.MULTIPART:
        return _of_parts(text, file, lineage)
    found = [*_verdict(text, file, lineage)]
    if kind is Format.CLOUD_CONFIG:
        try:
            outline = Outline(parse(text, lineage))
        except YamlError as error:
            outline = None
            found = [replace(finding, hint=_where(error)) if finding.code == _SYNTAX else finding for finding in found]
        if outline is not None:
            found += lint(Subject(text, file, lineage, outline))
    return sorted(found, key=lambda finding: (finding.location.line, finding.location.column, finding.code))


def _where(error: YamlError) -> str | None:
    """Return where the parser stopped: the line that the real program names may be one before it."""
    mark = getattr(error.__cause__, "problem_mark", None)
    return f"the parser stopped in line {mark.line + 1}, column {mark.column + 1}" if mark else None


def _script(text: str, file: str) -> list[Finding]:
    if "\r\n" not in text:
        return []
    message = "lines end as DOS ends them: the shell takes the carriage return for a part of each command"
    line = text.count("\n", 0, text.index("\r\n")) + 1
    hint = "let lines end with a newline alone"
    return [replace(make("dos-line-ends", Severity.WARNING, message, text, file, line), hint=hint)]


def _of_parts(text: str, file: str, lineage: Lineage) -> list[Finding]:
    """Return the findings about each cloud-config in a multipart message, at its place there where that is known."""
    found: list[Finding] = []
    try:
        for part in parts_of(text):
            if part.format is Format.CLOUD_CONFIG:
                before = text.find(part.text)
                lines = text.count("\n", 0, before)
                inside = findings(part.text, file if before >= 0 else f"{file}({part.name})", lineage)
                inside = [finding for finding in inside if finding.code != _NO_NEWLINE]
                found += [_moved(finding, lines) if before >= 0 else replace(finding, fix=()) for finding in inside]
    except PartsError as error:
        found.append(Finding("multipart", Severity.ERROR, str(error), Location(file)))
    return found


def _moved(finding: Finding, lines: int) -> Finding:
    """Return a finding of a text that begins `lines` lines further down."""
    place = finding.location
    location = replace(place, line=place.line + lines if place.line else 0)
    excerpt = tuple((number + lines, source) for number, source in finding.excerpt)
    return replace(finding, location=location, excerpt=excerpt, fix=())


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
    code = next((code for words, code in VERDICTS.items() if line.message.startswith(words)), _SYNTAX)
    return make(code, Severity(line.severity), line.message, text, file, line.number)


def make(code: str, severity: Severity, message: str, text: str, file: str, line: int) -> Finding:
    """Return a finding about a line; its column is where the line's text begins."""
    excerpt = excerpt_of(text, line) if line else ()
    source = excerpt[-1][1] if excerpt else ""
    column = len(source) - len(source.lstrip()) + 1
    return Finding(code, severity, message, Location(file, line, column), excerpt)
