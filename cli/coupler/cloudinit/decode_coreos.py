"""CoreOS's decoder: silent about wrong types; the last of two equal keys wins, lists grow, sections merge."""

from __future__ import annotations

import math
from typing import Any

from coupler.cloudinit.decoder import NEVER, Decoder, is_merge, truncate, zero
from coupler.cloudinit.grammar import Kind, Lineage, Type
from coupler.cloudinit.parse import Node, NodeKind
from coupler.cloudinit.scalars import Resolved, resolve
from coupler.cloudinit.yamlport import YamlError


class CoreosDecoder(Decoder):
    """Decodes as CoreOS's last release does."""

    lineage = Lineage.COREOS
    anchor_word = "Anchor"

    def anchor(self, node: Node) -> Node:
        """Return what an alias means: the last anchor of that name in the document, wherever it stands."""
        target = self.document.anchors.get(node.value)
        if target is None:
            raise YamlError(f"Unknown anchor '{node.value}' referenced")
        return target

    def null(self, wanted: Type, current: Any) -> tuple[bool, Any]:
        """Take null for the zero value, in lists too."""
        if wanted.kind is Kind.STRUCT:
            current.update(zero(wanted))
            return True, current
        return True, zero(wanted)

    def scalar(self, resolved: Resolved, text: str, wanted: Type) -> Any:
        """Take any scalar's source text for a string, and for the rest only what YAML 1.1 says it is."""
        value = resolved.value
        number = isinstance(value, int | float) and not isinstance(value, bool)
        match wanted.kind:
            case Kind.STRING:
                return value if resolved.tag == "!!binary" else text
            case Kind.BOOL if isinstance(value, bool):
                return value
            case Kind.INT if number and not math.isnan(value) and value < 2**63:  # type: ignore[arg-type,operator]
                return truncate(value)  # type: ignore[arg-type]
            case Kind.FLOAT if number:
                return float(value)  # type: ignore[arg-type]
        return NEVER

    def duplicates(self, _node: Node) -> bool:
        """Mind no duplicate key."""
        return False

    def start_of_list(self, current: list[Any]) -> list[Any]:
        """Go on with the list of an equal key before."""
        return current

    def typed_mapping(self, node: Node, wanted: Type, target: dict[str, Any]) -> bool:
        """Decode the keys in order, merges among them, each over what was there."""
        for name_node, value in node.pairs():
            if is_merge(name_node):
                for part in reversed(self.merged(value)):
                    self.typed(part, wanted, target)
                continue
            name = self._name(name_node)
            key = wanted.key(name) if name is not None else None
            if key is not None:
                target[key.name] = self.typed(value, key.type, target[key.name])[1]
        return True

    def _name(self, node: Node) -> str | None:
        """Return a key as text, its hyphens as underscores."""
        with self.entered(node) as target:
            if target.kind is not NodeKind.SCALAR or (value := resolve(target, self.lineage).value) is None:
                return None
            return value if target.tag == "!!binary" and isinstance(value, str) else target.value.replace("-", "_")

    def weak_mapping(self, node: Node, target: dict[Any, Any]) -> None:
        """Decode the keys in order, merges among them, each over what was there."""
        for name, value in node.pairs():
            if is_merge(name):
                for part in reversed(self.merged(value)):
                    with self.entered(part) as mapping:
                        self.weak_mapping(mapping, target)
            else:
                key = self.weak_key(name)
                target[key] = self.weak(value)
