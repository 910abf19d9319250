"""A tree of nodes as values, twice: weakly typed, as YAML itself reads it, and strongly typed, as the keys want it.

The real programs decode every document in both ways: the checker compares the two, the applier uses the second. Both
lineages' decoders are here with their rules for null, duplicate keys, aliases, merge keys and values of a wrong type.
Weak values are dict, list, the scalars of `scalars`, None; strong ones follow `grammar` (a section is a dict that has
every key).
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

from coupler.cloudinit.golang import quote, to_bytes
from coupler.cloudinit.grammar import CLOUD_CONFIG, Kind, Lineage, Type
from coupler.cloudinit.parse import Document, Node, NodeKind, YamlError
from coupler.cloudinit.scalars import Resolved, Timestamp, is_yes_or_no, resolve

CloudConfig = dict[str, Any]
"""A strongly typed document."""

_ZERO: dict[Kind, Any] = {Kind.STRING: "", Kind.INT: 0, Kind.FLOAT: 0.0, Kind.BOOL: False}
_MERGE_WANTS_MAP = "map merge requires map or sequence of maps as the value"
_MAX_DECODED = 2_000_000
"""How many values one document may decode to: aliases of aliases can make billions from a few lines."""
_NEVER = object()


class TypeErrors(YamlError):
    """Values of a wrong type and duplicate keys, all of them, as the newer decoder reports them."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("unmarshal errors:\n" + "\n".join(f"  {error}" for error in errors))


def zero(wanted: Type) -> Any:
    """Return the value of a key that is not in the document."""
    if wanted.kind is Kind.STRUCT:
        return {key.name: zero(key.type) for key in wanted.keys}
    return [] if wanted.kind is Kind.SLICE else _ZERO[wanted.kind]


def decode_strong(document: Document, lineage: Lineage) -> CloudConfig:
    """Return the typed document. Raises YamlError (TypeErrors for Flatcar) where the lineage refuses it."""
    decoder = _decoder(document, lineage)
    config: CloudConfig = zero(CLOUD_CONFIG)
    if document.root is not None:
        decoder.typed(document.root, CLOUD_CONFIG, config)
    decoder.finish()
    return config


def decode_weak(document: Document, lineage: Lineage) -> dict[Any, Any]:
    """Return the document as plain values, empty if it is no mapping. Raises YamlError as `decode_strong` does."""
    decoder = _decoder(document, lineage)
    root = document.root
    if root is not None and root.kind is NodeKind.ALIAS:
        root = decoder.anchor(root)
    weak: dict[Any, Any] = {}
    if root is None or root.kind is NodeKind.MAPPING:
        if root is not None:
            decoder.weak_mapping(root, weak)
    elif not (root.kind is NodeKind.SCALAR and resolve(root, lineage).value is None):
        decoder.mismatch(root, "map[interface {}]interface {}")
    decoder.finish()
    return weak


class _Decoder:
    """What both lineages share; the differences are the methods below that raise NotImplementedError."""

    lineage: Lineage

    def __init__(self, document: Document) -> None:
        self.document = document
        self.open_aliases: set[object] = set()
        self.decoded = 0
        self.through_alias = 0

    def finish(self) -> None:
        """Raise what was collected."""

    def mismatch(self, node: Node, wanted: str) -> None:
        """Note that a node's value is not of the wanted type."""

    def null(self, wanted: Type, current: Any) -> tuple[bool, Any]:
        raise NotImplementedError

    def scalar(self, resolved: Resolved, text: str, wanted: Type) -> Any:
        raise NotImplementedError

    def typed_mapping(self, node: Node, wanted: Type, target: dict[str, Any]) -> bool:
        raise NotImplementedError

    def weak_mapping(self, node: Node, target: dict[Any, Any]) -> None:
        raise NotImplementedError

    def anchor(self, node: Node) -> Node:
        raise NotImplementedError

    def count(self) -> None:
        self.decoded += 1
        self.through_alias += bool(self.open_aliases)
        if self.decoded > _MAX_DECODED:
            raise YamlError("document contains excessive aliasing")

    def follow(self, node: Node) -> Node:
        """Enter an alias; the caller leaves it with `leave`."""
        target = self.anchor(node)
        self.open_aliases.add(target)
        return target

    def leave(self, node: Node) -> None:
        self.open_aliases.discard(self.anchor(node))

    def typed(self, node: Node, wanted: Type, current: Any) -> tuple[bool, Any]:
        """Return (whether a value came of it, the value). A section is changed in place."""
        self.count()
        if node.kind is NodeKind.ALIAS:
            try:
                return self.typed(self.follow(node), wanted, current)
            finally:
                self.leave(node)
        if node.kind is NodeKind.SCALAR:
            return self._typed_scalar(node, wanted, current)
        if node.kind is NodeKind.SEQUENCE and wanted.kind is Kind.SLICE:
            return True, self.typed_sequence(node, wanted, current)
        if node.kind is NodeKind.MAPPING and wanted.kind is Kind.STRUCT:
            return self.typed_mapping(node, wanted, current), current
        if node.kind is NodeKind.MAPPING and self.duplicates(node):
            return False, current
        self.mismatch(node, wanted.name)
        return False, current

    def duplicates(self, node: Node) -> bool:
        """Note the keys that a mapping has twice, if the lineage minds."""
        return False

    def typed_sequence(self, node: Node, wanted: Type, current: list[Any]) -> list[Any]:
        assert wanted.element is not None  # noqa: S101 - a slice has an element type
        items = self.start_of_list(current)
        for child in node.children:
            good, value = self.typed(child, wanted.element, zero(wanted.element))
            if good:
                items.append(value)
        return items

    def start_of_list(self, current: list[Any]) -> list[Any]:
        return []

    def _typed_scalar(self, node: Node, wanted: Type, current: Any) -> tuple[bool, Any]:
        resolved = resolve(node, self.lineage)
        if resolved.value is None:
            return self.null(wanted, current)
        value = self.scalar(resolved, node.value, wanted)
        if value is _NEVER:
            self.mismatch(node, wanted.name)
            return False, current
        return True, value

    def weak(self, node: Node) -> Any:
        self.count()
        if node.kind is NodeKind.ALIAS:
            try:
                return self.weak(self.follow(node))
            finally:
                self.leave(node)
        if node.kind is NodeKind.SCALAR:
            return resolve(node, self.lineage).value
        if node.kind is NodeKind.SEQUENCE:
            return [self.weak(child) for child in node.children]
        mapping: dict[Any, Any] = {}
        self.weak_mapping(node, mapping)
        return mapping

    def weak_key(self, node: Node) -> Any:
        key = self.weak(node)
        if isinstance(key, dict | list):
            raise YamlError(f"invalid map key: {_go_literal(key)}")
        return MapKey(key)

    def merged(self, value: Node) -> list[Node]:
        """Return the mappings that a merge key's value names, in order."""
        parts = value.children if value.kind is NodeKind.SEQUENCE else [value]
        for part in parts:
            target = self.anchor(part) if part.kind is NodeKind.ALIAS else part
            if target.kind is not NodeKind.MAPPING:
                raise YamlError(_MERGE_WANTS_MAP)
        return parts


class MapKey:
    """A key of a weakly typed mapping. Unlike Python, Go keeps 1, 1.0 and true apart."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MapKey) and type(other.value) is type(self.value) and other.value == self.value

    def __hash__(self) -> int:
        return hash((type(self.value), self.value))


def _is_merge(node: Node) -> bool:
    return (
        node.kind is NodeKind.SCALAR and node.value == "<<" and (node.plain if not node.tag else node.tag == "!!merge")
    )


def _go_literal(value: Any) -> str:
    """Return a sequence or mapping as `%#v` prints it, near enough for an error message."""
    if isinstance(value, dict):
        inner = ", ".join(f"{_go_literal(key.value)}:{_go_literal(item)}" for key, item in value.items())
        return f"map[interface {{}}]interface {{}}{{{inner}}}"
    if isinstance(value, list):
        return f"[]interface {{}}{{{', '.join(map(_go_literal, value))}}}"
    if value is None:
        return "interface {}(nil)"
    return quote(value) if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)


class _Classic(_Decoder):
    """CoreOS's decoder: silent about wrong types; the last of two equal keys wins, lists grow, sections merge."""

    lineage = Lineage.COREOS

    def anchor(self, node: Node) -> Node:
        target = self.document.anchors.get(node.value)
        if target is None:
            raise YamlError(f"Unknown anchor '{node.value}' referenced")
        return target

    def follow(self, node: Node) -> Node:
        if self.anchor(node) in self.open_aliases:
            raise YamlError(f"Anchor '{node.value}' value contains itself")
        return super().follow(node)

    def null(self, wanted: Type, current: Any) -> tuple[bool, Any]:
        if wanted.kind is Kind.STRUCT:
            current.update(zero(wanted))
            return True, current
        return True, zero(wanted)

    def scalar(self, resolved: Resolved, text: str, wanted: Type) -> Any:
        value = resolved.value
        match wanted.kind:
            case Kind.STRING:
                return value if resolved.tag == "!!binary" else text
            case Kind.BOOL if isinstance(value, bool):
                return value
            case Kind.INT if isinstance(value, int | float) and not isinstance(value, bool):
                return _NEVER if value != value or value >= 2**63 else _truncate(value)
            case Kind.FLOAT if isinstance(value, int | float) and not isinstance(value, bool):
                return float(value)
        return _NEVER

    def start_of_list(self, current: list[Any]) -> list[Any]:
        return current

    def typed_mapping(self, node: Node, wanted: Type, target: dict[str, Any]) -> bool:
        for name_node, value in node.pairs():
            if _is_merge(name_node):
                for part in reversed(self.merged(value)):
                    self.typed(part, wanted, target)
                continue
            name = self._name(name_node)
            key = wanted.key(name) if name is not None else None
            if key is not None:
                target[key.name] = self.typed(value, key.type, target[key.name])[1]
        return True

    def _name(self, node: Node) -> str | None:
        """Return a key as text, hyphens as underscores, which is what the applier of this lineage does."""
        if node.kind is NodeKind.ALIAS:
            node = self.anchor(node)
        if node.kind is not NodeKind.SCALAR or (value := resolve(node, self.lineage).value) is None:
            return None
        return value if node.tag == "!!binary" and isinstance(value, str) else node.value.replace("-", "_")

    def weak_mapping(self, node: Node, target: dict[Any, Any]) -> None:
        for name, value in node.pairs():
            if _is_merge(name):
                for part in reversed(self.merged(value)):
                    self.weak_mapping(self.anchor(part) if part.kind is NodeKind.ALIAS else part, target)
                continue
            key = self.weak_key(name)
            target[key] = self.weak(value)


class _Flatcar(_Decoder):
    """Flatcar's decoder: every wrong type and duplicate key is an error; what a mapping says itself beats a merge."""

    lineage = Lineage.FLATCAR

    def __init__(self, document: Document) -> None:
        super().__init__(document)
        self.errors: list[str] = []

    def finish(self) -> None:
        if self.errors:
            raise TypeErrors(self.errors)

    def count(self) -> None:
        super().count()
        if (
            self.through_alias > 100
            and self.decoded > 1000
            and self.through_alias / self.decoded > _allowed(self.decoded)
        ):  # noqa: PLR2004 - the decoder's own bounds
            raise YamlError("document contains excessive aliasing")

    def anchor(self, node: Node) -> Node:
        assert node.target is not None  # noqa: S101 - this lineage refuses unknown aliases while parsing
        return node.target

    def follow(self, node: Node) -> Node:
        if self.anchor(node) in self.open_aliases:
            raise YamlError(f"anchor '{node.value}' value contains itself")
        return super().follow(node)

    def mismatch(self, node: Node, wanted: str) -> None:
        if node.kind is NodeKind.SCALAR:
            tag = node.tag or resolve(node, self.lineage).tag
            text = to_bytes(node.value)
            shown = f"{text[:7].decode(errors='replace')}..." if len(text) > 10 else node.value  # noqa: PLR2004
            what = f"{tag} `{shown}`"
        else:
            what = "!!seq" if node.kind is NodeKind.SEQUENCE else "!!map"
        self.errors.append(f"line {node.line}: cannot unmarshal {what} into {wanted}")

    def null(self, wanted: Type, current: Any) -> tuple[bool, Any]:
        return (True, []) if wanted.kind is Kind.SLICE else (False, current)

    def scalar(self, resolved: Resolved, text: str, wanted: Type) -> Any:
        value = resolved.value
        match wanted.kind:
            case Kind.STRING:
                return value if resolved.tag == "!!binary" else text
            case Kind.BOOL:
                if isinstance(value, bool):
                    return value
                answer = is_yes_or_no(value) if isinstance(value, str) else None
                return _NEVER if answer is None else answer
            case Kind.INT if isinstance(value, int | float) and not isinstance(value, bool):
                return _truncate(value) if value < 2**63 else _NEVER
            case Kind.FLOAT if isinstance(value, int | float) and not isinstance(value, bool):
                return float(value)
        return _NEVER

    def duplicates(self, node: Node) -> bool:
        same: dict[tuple[NodeKind, str], list[Node]] = {}
        for name in node.children[::2]:
            same.setdefault((name.kind, name.value), []).append(name)
        repeated = [names for names in same.values() if len(names) > 1]
        for first, second in (pair for names in repeated for pair in combinations(names, 2)):
            self.errors.append(
                f"line {second.line}: mapping key {quote(second.value)} already defined at line {first.line}"
            )
        return bool(repeated)

    def typed_mapping(self, node: Node, wanted: Type, target: dict[str, Any]) -> bool:
        return self._typed_mapping(node, wanted, target, set())

    def _typed_mapping(self, node: Node, wanted: Type, target: dict[str, Any], done: set[str]) -> bool:
        """Decode a mapping into a section, except the keys that are `done`; `done` grows."""
        if self.duplicates(node):
            return False
        merge = None
        fresh: set[str] = set()
        for name_node, value in node.pairs():
            if _is_merge(name_node):
                merge = value
                continue
            name = self._name(name_node)
            if name is None or name in done:
                continue
            fresh.add(name)
            key = wanted.key(name)
            if key is not None:
                target[key.name] = self.typed(value, key.type, target[key.name])[1]
        done |= fresh
        for part in self.merged(merge) if merge is not None else ():
            self._typed_mapping(self.anchor(part) if part.kind is NodeKind.ALIAS else part, wanted, target, done)
        return True

    def _name(self, node: Node) -> str | None:
        if node.kind is NodeKind.ALIAS:
            node = self.anchor(node)
        if node.kind is not NodeKind.SCALAR:
            self.mismatch(node, "string")
            return None
        value = resolve(node, self.lineage).value
        if value is None:
            return None
        return value if node.tag == "!!binary" and isinstance(value, str) else node.value

    def weak_mapping(self, node: Node, target: dict[Any, Any]) -> None:
        self._weak_mapping(node, target, set())

    def _weak_mapping(self, node: Node, target: dict[Any, Any], done: set[MapKey]) -> None:
        if self.duplicates(node):
            return
        merge = None
        fresh: set[MapKey] = set()
        for name, value in node.pairs():
            if _is_merge(name):
                merge = value
                continue
            key = self.weak_key(name)
            if key in done:
                continue
            fresh.add(key)
            target[key] = self.weak(value)
        done |= fresh
        for part in self.merged(merge) if merge is not None else ():
            self._weak_mapping(self.anchor(part) if part.kind is NodeKind.ALIAS else part, target, done)


def _decoder(document: Document, lineage: Lineage) -> _Decoder:
    return _Classic(document) if lineage is Lineage.COREOS else _Flatcar(document)


def _truncate(value: float) -> int:
    return -(2**63) if value != value or value < -(2**63) else int(value)


def _allowed(decoded: int) -> float:
    """Return which share of the values may come from aliases: 99 percent up to 400,000 values, then down to 10."""
    low, high = 400_000, 4_000_000
    return 0.99 - 0.89 * min(max((decoded - low) / (high - low), 0.0), 1.0)


__all__ = ["CloudConfig", "MapKey", "Timestamp", "TypeErrors", "decode_strong", "decode_weak", "zero"]
