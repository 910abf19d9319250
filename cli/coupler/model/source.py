"""YAML text to plain data that remembers where each value stands.

PyYAML resolves scalars by YAML 1.1, in which `off` is false, `1.30` a float and `04:00` a number of minutes. Here every
scalar stays the text that was written (what it means is the model's business), each value's line and column are
kept, duplicate keys are refused, and aliases cannot expand without bound.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import yaml

from coupler.errors import Finding, Location, Severity, excerpt_of
from coupler.model.composer import (
    MAX_DEPTH,
    MappingNode,
    ScalarNode,
    SequenceNode,
    SeveralDocumentsError,
    TooDeepError,
    YamlNode,
    compose,
)

if TYPE_CHECKING:
    from pathlib import Path

KeyPath: TypeAlias = tuple[str | int, ...]

MAX_VALUES = 200_000
"""More values than this, aliases expanded, is an alias bomb and no cluster."""
_TAGS = {None, "str", "int", "float", "bool", "null", "map", "seq"}
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff]")


class Scalar(str):
    """The text of a scalar; `plain` says that it was written without quotes."""

    __slots__ = ("plain",)
    plain: bool

    @classmethod
    def of(cls, node: ScalarNode) -> Scalar:
        """Return the scalar of a node."""
        scalar = cls(node.text)
        scalar.plain = node.plain
        return scalar


@dataclass(frozen=True)
class Position:
    """Where a key and its value begin; lines and columns count from 1."""

    key: tuple[int, int]
    value: tuple[int, int]


@dataclass(frozen=True)
class Source:
    """A parsed YAML file: `data` holds dicts, lists and `Scalar`s, `positions` where each of them was written."""

    file: str
    text: str
    data: Any
    positions: dict[KeyPath, Position]

    def finding(
        self,
        code: str,
        severity: Severity,
        path: KeyPath,
        message: str,
        hint: str | None = None,
        *,
        of_key: bool = False,
    ) -> Finding:
        """Return a finding about the value (or key) at `path`, or about the nearest part around it that is written."""
        known = path
        while known and known not in self.positions:
            known = known[:-1]
        if not known:
            return Finding(code, severity, message, Location(self.file), hint=hint)
        position = self.positions[known]
        line, column = position.key if of_key or known != path else position.value
        return Finding(code, severity, message, Location(self.file, line, column), excerpt_of(self.text, line), hint)


class SourceError(Exception):
    """The file cannot be read as YAML; `findings` say why."""

    def __init__(self, *findings: Finding) -> None:
        super().__init__(findings[0].message)
        self.findings = findings


def read_text(path: Path, name: str | None = None) -> str:
    """Return the text of a UTF-8 file; `name` is how messages call it. Raises SourceError."""
    file = name or str(path)
    if path.is_dir():
        raise SourceError(_whole_file(file, "not-a-file", "this is a directory, not a file"))
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise SourceError(_whole_file(file, "file-missing", "there is no such file")) from None
    except OSError as error:
        raise SourceError(_whole_file(file, "file-unreadable", f"cannot be read: {error.strerror}")) from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8")
        readable = raw.decode("utf-8", errors="replace")
        finding = _at_offset(
            file, readable, len(before), "not-utf8", f"byte 0x{raw[error.start]:02x} is not UTF-8 text"
        )
        raise SourceError(finding) from None


def parse(text: str, file: str) -> Source:
    """Return the YAML document `text`. Raises SourceError with every fault of its form that can be told at once."""
    if bad := _UNPRINTABLE.search(text):
        message = f"the character U+{ord(bad[0]):04X} is not allowed in YAML"
        raise SourceError(_at_offset(file, text, bad.start(), "control-character", message))
    try:
        root = compose(text)
    except yaml.MarkedYAMLError as error:
        raise SourceError(_syntax(file, text, error)) from None
    builder = _Builder(file, text)
    data = builder.build(root, ()) if root is not None else None
    if builder.findings:
        raise SourceError(*builder.findings)
    return Source(file, text, data, builder.positions)


@dataclass
class _Builder:
    file: str
    text: str
    positions: dict[KeyPath, Position] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    count: int = 0

    def build(self, node: YamlNode, path: KeyPath) -> Any:
        """Return the data of a node, and note where it and everything in it stands."""
        self.count += 1
        if self.count > MAX_VALUES:
            self._refuse(node, "too-large", f"aliases expand to more than {MAX_VALUES:,} values")
        if len(path) > MAX_DEPTH:
            self._refuse(node, "too-deep", f"nested deeper than {MAX_DEPTH} levels, by an alias that contains itself")
        if node.tag not in _TAGS:
            self._note(node, "yaml-tag", f"the tag `{node.tag}` means nothing here", "remove the tag")
        if isinstance(node, MappingNode):
            result: dict[str, Any] = {}
            self._fill(result, node, path)
            return result
        if isinstance(node, SequenceNode):
            return [self._item(child, (*path, index)) for index, child in enumerate(node.items)]
        return None if node.absent else Scalar.of(node)

    def _item(self, node: YamlNode, path: KeyPath) -> Any:
        self.positions[path] = Position(node.place, node.place)
        return self.build(node, path)

    def _fill(self, result: dict[str, Any], node: MappingNode, path: KeyPath, merges: int = 0) -> None:
        """Add the keys of `node`; those that a merge (`<<`) brings do not replace what is there."""
        if merges > MAX_DEPTH:
            self._refuse(node, "too-deep", f"merged deeper than {MAX_DEPTH} levels, by a mapping that merges itself")
        own: set[str] = set()
        merged: list[YamlNode] = []
        for key, value in node.pairs:
            if not isinstance(key, ScalarNode):
                self._note(key, "invalid-key", "a key must be one word or text")
            elif key.merges:
                merged += value.items if isinstance(value, SequenceNode) else [value]
            elif key.text in own:
                message = f"the key `{key.text}` is already set in line {self.positions[*path, key.text].key[0]}"
                self._note(key, "duplicate-key", message, "keep one of the two")
            elif key.text not in result:
                own.add(key.text)
                at = value.place if isinstance(value, ScalarNode) and not value.absent else key.place
                self.positions[*path, key.text] = Position(key.place, at)
                result[key.text] = self.build(value, (*path, key.text))
        for source in merged:
            self.count += 1
            if isinstance(source, MappingNode) and self.count <= MAX_VALUES:
                self._fill(result, source, path, merges + 1)
            elif isinstance(source, MappingNode):
                self._refuse(source, "too-large", f"merges expand to more than {MAX_VALUES:,} values")
            else:
                self._note(source, "invalid-merge", "`<<` takes a mapping, or a list of mappings")

    def _note(self, node: YamlNode, code: str, message: str, hint: str | None = None) -> None:
        line, column = node.place
        location = Location(self.file, line, column)
        self.findings.append(Finding(code, Severity.ERROR, message, location, excerpt_of(self.text, line), hint))

    def _refuse(self, node: YamlNode, code: str, message: str) -> None:
        self._note(node, code, message)
        raise SourceError(*self.findings)


def _whole_file(file: str, code: str, message: str) -> Finding:
    return Finding(code, Severity.ERROR, message, Location(file))


def _at_offset(file: str, text: str, offset: int, code: str, message: str) -> Finding:
    line = text.count("\n", 0, offset) + 1
    column = offset - (text.rfind("\n", 0, offset) + 1) + 1
    return Finding(code, Severity.ERROR, message, Location(file, line, column), excerpt_of(text, line))


def _syntax(file: str, text: str, error: yaml.MarkedYAMLError) -> Finding:
    lines = text.splitlines()
    mark = error.problem_mark or error.context_mark
    if mark and mark.line >= len(lines):  # the end of the file says less than what is still open there
        mark = error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (0, 1)
    source = lines[line - 1] if 0 < line <= len(lines) else ""
    problem = error.problem or error.context or "cannot be read"
    message = f"YAML syntax: {problem}"
    code, hint = "yaml-syntax", _advice(problem)
    if isinstance(error, SeveralDocumentsError):
        code, message, hint = "several-documents", "a second document begins here", "remove the line `---`"
    elif isinstance(error, TooDeepError):
        code, message, hint = "too-deep", f"nested deeper than {MAX_DEPTH} levels", None
    elif "\t" in source[: max(column, len(source) - len(source.lstrip()))]:
        code, message, hint = "tab", "a tab cannot indent YAML", "indent with two spaces"
        column = source.index("\t") + 1
    elif error.context and error.context_mark and error.context_mark.line + 1 != line:
        message += f", {error.context} that began in line {error.context_mark.line + 1}"
    return Finding(code, Severity.ERROR, message, Location(file, line, column), excerpt_of(text, line), hint)


def _advice(problem: str) -> str | None:
    if "mapping values are not allowed" in problem:
        return "quote a text that contains `: `, or check the indentation of the line above"
    if "did not find expected key" in problem or "block end" in problem or "block mapping" in problem:
        return "check the indentation: keys of one mapping begin in the same column"
    if "unexpected end of stream" in problem:
        return "close the quote or bracket"
    if "undefined alias" in problem:
        return "define the anchor with `&name` above its first use, or quote a text that begins with `*`"
    return None
