"""Flatcar's decoder: every wrong type and duplicate key is an error; what a mapping says itself beats a merge."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from coupler.cloudinit.decoder import NEVER, Decoder, MapKey, is_merge, truncate
from coupler.cloudinit.golang import quote, to_bytes
from coupler.cloudinit.grammar import Kind, Lineage, Type
from coupler.cloudinit.parse import Document, Node, NodeKind
from coupler.cloudinit.scalars import Resolved, is_yes_or_no, resolve
from coupler.cloudinit.yamlport import YamlError

_SHOWN, _MAX_SHOWN = 7, 10
_FREE_ALIASES, _FREE_VALUES = 100, 1000


class TypeMismatchError(YamlError):
    """Values of a wrong type and duplicate keys, all of them, as the newer decoder reports them."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("unmarshal errors:\n" + "\n".join(f"  {error}" for error in errors))


class FlatcarDecoder(Decoder):
    """Decodes as the fork that Flatcar ships does; errors are collected until `finish`."""

    lineage = Lineage.FLATCAR
    anchor_word = "anchor"

    def __init__(self, document: Document) -> None:
        super().__init__(document)
        self.errors: list[str] = []

    def finish(self) -> None:
        """Raise TypeMismatchError if there are errors."""
        if self.errors:
            raise TypeMismatchError(self.errors)

    def count(self) -> None:
        """Count a value; refuse a document most of whose values come from aliases."""
        super().count()
        many = self.through_alias > _FREE_ALIASES and self.decoded > _FREE_VALUES
        if many and self.through_alias / self.decoded > _allowed(self.decoded):
            raise YamlError("document contains excessive aliasing")

    def anchor(self, node: Node) -> Node:
        """Return what an alias means: the anchor of that name before it."""
        if node.target is None:
            raise YamlError(f"unknown anchor '{node.value}' referenced")
        return node.target

    def mismatch(self, node: Node, wanted: str) -> None:
        """Note that a node's value is not of the wanted type."""
        kinds = {NodeKind.SEQUENCE: "!!seq", NodeKind.MAPPING: "!!map"}
        tag = node.tag or kinds.get(node.kind) or resolve(node, self.lineage).tag
        text = to_bytes(node.value)
        shown = node.value if len(text) <= _MAX_SHOWN else f"{text[:_SHOWN].decode(errors='replace')}..."
        what = tag if tag in kinds.values() else f"{tag} `{shown}`"
        self.errors.append(f"line {node.line}: cannot unmarshal {what} into {wanted}")

    def null(self, wanted: Type, current: Any) -> tuple[bool, Any]:
        """Take null for an empty list; otherwise it leaves things as they are, and drops out of lists."""
        return (True, []) if wanted.kind is Kind.SLICE else (False, current)

    def scalar(self, resolved: Resolved, text: str, wanted: Type) -> Any:
        """Take any scalar's source text for a string, and `yes`, `off` and their kind, even quoted, for booleans."""
        value = resolved.value
        number = isinstance(value, int | float) and not isinstance(value, bool)
        match wanted.kind:
            case Kind.STRING:
                return value if resolved.tag == "!!binary" else text
            case Kind.BOOL if isinstance(value, bool):
                return value
            case Kind.BOOL if isinstance(value, str) and (answer := is_yes_or_no(value)) is not None:
                return answer
            case Kind.INT if number and value < 2**63:  # type: ignore[operator]
                return truncate(value)  # type: ignore[arg-type]
            case Kind.FLOAT if number:
                return float(value)  # type: ignore[arg-type]
        return NEVER

    def duplicates(self, node: Node) -> bool:
        """Note each pair of equal keys in a mapping; return whether there is one."""
        same: dict[tuple[NodeKind, str], list[Node]] = {}
        for name in node.children[::2]:
            same.setdefault((name.kind, name.value), []).append(name)
        repeated = [names for names in same.values() if len(names) > 1]
        for first, second in (pair for names in repeated for pair in combinations(names, 2)):
            self.errors.append(
                f"line {second.line}: mapping key {quote(second.value)} already defined at line {first.line}"
            )
        return bool(repeated)

    def start_of_list(self, _current: list[Any]) -> list[Any]:
        """Begin a list anew."""
        return []

    def typed_mapping(self, node: Node, wanted: Type, target: dict[str, Any]) -> bool:
        """Decode the keys, then what a merge key adds to them."""
        return self._typed_mapping(node, wanted, target, set())

    def _typed_mapping(self, node: Node, wanted: Type, target: dict[str, Any], done: set[str]) -> bool:
        """Decode a mapping into a section, except the keys that are `done`; `done` grows."""
        if self.duplicates(node):
            return False
        merge = None
        fresh: set[str] = set()
        for name_node, value in node.pairs():
            if is_merge(name_node):
                merge = value
                continue
            name = self._name(name_node)
            if name is None or name in done:
                continue
            key = wanted.key(name)
            if key is not None and name in fresh:
                self.errors.append(f"line {name_node.line}: field {name} already set in type {wanted.name}")
                continue
            fresh.add(name)
            if key is not None:
                target[key.name] = self.typed(value, key.type, target[key.name])[1]
        done |= fresh
        for part in self.merged(merge):
            with self.entered(part) as mapping:
                self._typed_mapping(mapping, wanted, target, done)
        return True

    def _name(self, node: Node) -> str | None:
        with self.entered(node) as target:
            if target.kind is not NodeKind.SCALAR:
                self.mismatch(target, "string")
                return None
            value = resolve(target, self.lineage).value
            if value is None:
                return None
            return value if target.tag == "!!binary" and isinstance(value, str) else target.value

    def weak_mapping(self, node: Node, target: dict[Any, Any]) -> None:
        """Decode the keys, then what a merge key adds to them."""
        self._weak_mapping(node, target, set())

    def _weak_mapping(self, node: Node, target: dict[Any, Any], done: set[MapKey]) -> None:
        if self.duplicates(node):
            return
        merge = None
        fresh: set[MapKey] = set()
        for name, value in node.pairs():
            if is_merge(name):
                merge = value
                continue
            key = self.weak_key(name)
            if key in done:
                continue
            fresh.add(key)
            target[key] = self.weak(value)
        done |= fresh
        for part in self.merged(merge):
            with self.entered(part) as mapping:
                self._weak_mapping(mapping, target, done)


def _allowed(decoded: int) -> float:
    """Return which share of the values may come from aliases: 99 percent up to 400,000 values, then down to 10."""
    low, high = 400_000, 4_000_000
    return 0.99 - 0.89 * min(max((decoded - low) / (high - low), 0.0), 1.0)
