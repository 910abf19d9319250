"""A tree of nodes as values, twice: weakly typed, as YAML itself reads it, and strongly typed, as the keys want it.

The real programs decode every document in both ways: the checker compares the two, the applier uses the second. Both
lineages' decoders are here with their rules for null, duplicate keys, aliases, merge keys and values of a wrong type.
Weak values are dict, list, the scalars of `scalars`, None; strong ones follow `grammar` (a section is a dict that has
every key).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from coupler.cloudinit.decode_coreos import CoreosDecoder
from coupler.cloudinit.decode_flatcar import FlatcarDecoder
from coupler.cloudinit.decoder import zero
from coupler.cloudinit.grammar import CLOUD_CONFIG, Lineage
from coupler.cloudinit.parse import Document, NodeKind
from coupler.cloudinit.scalars import resolve

if TYPE_CHECKING:
    from coupler.cloudinit.decoder import Decoder

CloudConfig = dict[str, Any]
"""A strongly typed document."""


def decode_strong(document: Document, lineage: Lineage) -> CloudConfig:
    """Return the typed document. Raises YamlError (TypeMismatchError for Flatcar) where the lineage refuses it."""
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


def _decoder(document: Document, lineage: Lineage) -> Decoder:
    return CoreosDecoder(document) if lineage is Lineage.COREOS else FlatcarDecoder(document)
