"""The verdict of the real programs' `-validate`: the same lines, as a set, and the same exit code.

A line number is found as the real validator finds it: not from the YAML parser, but by a search through the text for
`KEY:` and `-` from the parent's line on. It is therefore 0 or wrong for flow style, quoted keys, and keys whose name
stands earlier; that is the real answer, and ours must be the same.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from coupler.cloudinit.decode import decode_strong, decode_weak
from coupler.cloudinit.decode_flatcar import TypeMismatchError
from coupler.cloudinit.decoder import go_map_type
from coupler.cloudinit.golang import (
    DecodeError,
    decode_content,
    directory_of,
    format_float,
    format_value,
    is_request_uri,
    quote,
    to_text,
)
from coupler.cloudinit.grammar import CLOUD_CONFIG, Kind, Lineage, Type
from coupler.cloudinit.parse import parse
from coupler.cloudinit.scalars import Timestamp
from coupler.cloudinit.userdata import Format, decompress, format_of
from coupler.cloudinit.yamlport import YamlError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coupler.cloudinit.decoder import MapKey

_KEY = re.compile(r" *-? ?(.*?):")
_ELEMENT = re.compile(r" *-")
_SCALARS = frozenset((Kind.STRING, Kind.INT, Kind.FLOAT, Kind.BOOL))
_COMPATIBLE: dict[Kind, frozenset[Kind]] = {
    Kind.STRING: _SCALARS,
    Kind.STRUCT: frozenset((Kind.STRUCT,)),
    Kind.FLOAT: frozenset((Kind.FLOAT, Kind.INT)),
    Kind.BOOL: frozenset((Kind.BOOL,)),
    Kind.SLICE: frozenset((Kind.SLICE,)),
    Kind.INT: frozenset((Kind.INT,)),
}


@dataclass(frozen=True, order=True)
class Line:
    """One line of a report: `line N: severity: message`."""

    number: int
    severity: str
    message: str

    def __str__(self) -> str:
        return f"line {self.number}: {self.severity}: {self.message}"


@dataclass(frozen=True)
class Report:
    """What `-validate` says. `failure` is set where the validator itself gave up, and is then all it says."""

    lines: tuple[Line, ...] = ()
    failure: str | None = None

    @property
    def exit_code(self) -> int:
        """Return the exit code of `-validate`: any line at all makes it 1."""
        return 1 if self.lines or self.failure is not None else 0

    def text(self) -> list[str]:
        """Return the lines as the program prints them, sorted."""
        if self.failure is not None:
            return [f"Failed while validating user_data ({quote(self.failure)})"]
        return [str(line) for line in sorted(set(self.lines))]


def validate(text: str, lineage: Lineage) -> Report:
    """Return what the lineage's `-validate` says of user-data; the text is not substituted, as there."""
    match format_of(text, lineage):
        case Format.EMPTY | Format.SCRIPT | Format.IGNITION | Format.MULTIPART:
            return Report()
        case Format.CLOUD_CONFIG:
            return _validate_cloud_config(text, lineage)
    multipart = ", multipart mime" if lineage is Lineage.FLATCAR else ""
    return Report((Line(1, "error", f'must be "#cloud-config"{multipart} or begin with "#!"'),))


def validate_data(data: bytes, lineage: Lineage) -> tuple[list[str], int]:
    """Return (lines, exit code) of `-validate` for user-data as a data source has it: it may be compressed.

    A gzip that breaks off is one more line, and does not change the exit code.
    """
    plain, problem = decompress(data)
    report = validate(to_text(plain), lineage)
    failed = f"Failed decompressing user-data from datasource: {problem}. Continuing..."
    return [*([failed] if problem is not None else []), *report.text()], report.exit_code


class _PanicError(Exception):
    """The real validator stops in the middle here, with this message."""


@dataclass
class _Node:
    """A value with the name and line that the validator gives it. `kind` is None where it holds no value."""

    name: str
    line: int = 0
    value: Any = None
    kind: Kind | None = None
    children: list[_Node] = field(default_factory=list)

    def child(self, name: str) -> _Node:
        return next((child for child in self.children if child.name == name), _Node(""))

    def text(self, lineage: Lineage) -> str:
        """Return the value as a string; of a value that is none, what Go prints instead."""
        return self.value if self.kind is Kind.STRING else f"<{_go_type(self.value, lineage)} Value>"


def _validate_cloud_config(text: str, lineage: Lineage) -> Report:
    try:
        document = parse(text, lineage)
        weak = decode_weak(document, lineage)
    except TypeMismatchError:
        return Report(failure="couldn't parse yaml error")
    except YamlError as error:
        return _check(_Node(""), [Line(error.line or 1, "error", error.message)], lineage)
    try:
        node = _Positions(text).mapping(_Node("", value=weak, kind=Kind.STRUCT), weak, 1)
        strong = decode_strong(document, lineage)
    except YamlError as error:
        return Report(failure=error.text(lineage))
    except _PanicError as error:
        return Report(failure=str(error))
    _normalize(node)
    _coerce(node, strong, CLOUD_CONFIG)
    return _check(node, [], lineage)


def _check(root: _Node, lines: list[Line], lineage: Lineage) -> Report:
    try:
        for rule in (_check_discovery, _check_encoding, _check_structure, _check_validity, _check_files):
            lines += rule(root, lineage)
    except _PanicError as error:
        return Report(failure=str(error))
    return Report(tuple(lines))


class _Positions:
    """Names and line numbers for weak values, by a search through the text."""

    def __init__(self, text: str) -> None:
        self.elements: list[int] = []
        self.colons: list[int] = []
        self.keys: dict[str, list[int]] = {}
        lines = text.replace("\r", "").split("\n")
        self.end = len(lines) + 1
        for number, line in enumerate(lines, start=1):
            if _ELEMENT.match(line):
                self.elements.append(number)
            if match := _KEY.match(line):
                self.colons.append(number)
                self.keys.setdefault(match[1], []).append(number)

    def _find(self, lines: list[int], start: int) -> int | None:
        index = bisect_left(lines, start)
        return lines[index] if index < len(lines) else None

    def mapping(self, node: _Node, value: dict[MapKey, Any], start: int) -> _Node:
        for key, item in value.items():
            name = _go_string(key.value)
            found = self._find(self.keys.get(name, []) if name else self.colons, start)
            node.children.append(self._node(_Node(name, found or 0), item, found or self.end))
        return node

    def _node(self, node: _Node, value: Any, start: int) -> _Node:
        if value is None:
            return node
        node.value, node.kind = value, _kind_of(value)
        if isinstance(value, dict):
            return self.mapping(node, value, start)
        for index, item in enumerate(value if isinstance(value, list) else ()):
            found = self._find(self.elements, start)
            node.children.append(self._node(_Node(f"{node.name}[{index}]", found or 0), item, found or self.end))
            start = (found or self.end) + 1
        return node


def _kind_of(value: Any) -> Kind:
    match value:
        case bool():
            return Kind.BOOL
        case int():
            if value >= 2**63:
                raise _PanicError("toNode(): unhandled kind uint64")
            return Kind.INT
        case float():
            return Kind.FLOAT
        case str():
            return Kind.STRING
        case list():
            return Kind.SLICE
    return Kind.STRUCT  # a mapping, and a time stamp, which is a structure in Go


def _go_string(value: Any) -> str:
    """Return a key as `%s` prints it: a complaint about the type where it is no string."""
    match value:
        case str():
            return value
        case None:
            return "%!s(<nil>)"
        case bool():
            return f"%!s(bool={str(value).lower()})"
        case int():
            return f"%!s({'uint64' if value >= 2**63 else 'int'}={value})"
        case float():
            return f"%!s(float64={format_float(value)})"
    return str(value.text)


def _go_type(value: Any, lineage: Lineage) -> str:
    if isinstance(value, dict):
        return go_map_type(value, lineage)
    names = {bool: "bool", int: "int", float: "float64", list: "[]interface {}", Timestamp: "time.Time"}
    return names.get(type(value), "invalid")


def _normalize(node: _Node) -> None:
    node.name = node.name.replace("-", "_")
    for child in node.children:
        _normalize(child)


def _coerce(weak: _Node, strong: Any, wanted: Type) -> None:
    """Give leaves the strongly typed value where the types agree: 0644 was read as 420, and is the text `0644`."""
    if not weak.children and not (wanted.kind in (Kind.STRUCT, Kind.SLICE) and strong):
        if weak.kind in _COMPATIBLE[wanted.kind] and wanted.kind in _SCALARS:
            weak.value, weak.kind = strong, wanted.kind
        return
    for index, child in enumerate(weak.children):
        if wanted.kind is Kind.STRUCT and (key := wanted.key(child.name)) is not None:
            _coerce(child, strong[key.name], key.type)
        elif wanted.element is not None and index < len(strong):
            _coerce(child, strong[index], wanted.element)


def _check_discovery(root: _Node, lineage: Lineage) -> Iterator[Line]:
    discovery = root.child("coreos").child("etcd").child("discovery")
    if discovery.kind is not None and not is_request_uri(discovery.text(lineage)):
        yield Line(discovery.line, "warning", "discovery URL is not valid")


def _check_encoding(root: _Node, lineage: Lineage) -> Iterator[Line]:
    for file in root.child("write_files").children:
        encoding, content = file.child("encoding"), file.child("content")
        if encoding.kind is None:
            continue
        try:
            decode_content(content.text(lineage), encoding.text(lineage))
        except DecodeError:
            yield Line(content.line, "error", f"content cannot be decoded as {quote(encoding.text(lineage))}")


def _check_structure(root: _Node, _lineage: Lineage) -> Iterator[Line]:
    return _structure(root, CLOUD_CONFIG)


def _structure(node: _Node, wanted: Type) -> Iterator[Line]:
    if node.kind not in _COMPATIBLE[wanted.kind]:
        yield Line(node.line, "warning", f"incorrect type for {quote(node.name)} (want {wanted.human})")
        return
    for child in node.children:
        if wanted.element is not None:
            yield from _structure(child, wanted.element)
        elif (key := wanted.key(child.name)) is None:
            if wanted.kind is Kind.STRUCT:
                yield Line(child.line, "warning", f"unrecognized key {quote(child.name)}")
        else:
            if key.deprecated:
                yield Line(child.line, "warning", f"deprecated key {quote(child.name)} ({key.deprecated})")
            yield from _structure(child, key.type)


def _check_validity(root: _Node, lineage: Lineage) -> Iterator[Line]:
    return _validity(root, CLOUD_CONFIG, "", lineage)


def _validity(node: _Node, wanted: Type, valid: str, lineage: Lineage) -> Iterator[Line]:
    if valid and not isinstance(node.value, Timestamp):
        if node.kind is None:
            raise _PanicError("reflect: call of reflect.Value.Interface on zero Value")
        if node.kind in (Kind.SLICE, Kind.STRUCT):
            raise _PanicError(f"runtime error: comparing uncomparable type {_go_type(node.value, lineage)}")
        text = format_value(node.value)
        if node.value and not re.search(valid, text):
            yield Line(node.line, "error", f"invalid value {text}")
    for child in node.children:
        if wanted.element is not None:
            yield from _validity(child, wanted.element, "", lineage)
        elif (key := wanted.key(child.name)) is not None:
            yield from _validity(child, key.type, key.valid, lineage)


def _check_files(root: _Node, lineage: Lineage) -> Iterator[Line]:
    for file in root.child("write_files").children:
        path = file.child("path")
        if path.kind is not None and directory_of(path.text(lineage)).startswith("/usr"):
            yield Line(path.line, "error", "file cannot be written to a read-only filesystem")
    misplaced = root.child("coreos").child("write_files")
    if misplaced.kind is not None:
        yield Line(misplaced.line, "info", "write_files doesn't belong under coreos")
