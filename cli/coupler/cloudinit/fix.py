"""Mends a document: carries out the edits that findings bring, and makes sure that they change nothing else.

Comments, layout and all that no finding is about stay as they are. Not loaded where documents are applied.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coupler.cloudinit.findings import findings
from coupler.cloudinit.parse import Node, NodeKind, parse
from coupler.cloudinit.scalars import is_yes_or_no
from coupler.cloudinit.userdata import Format, format_of
from coupler.cloudinit.yamlport import YamlError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coupler.cloudinit.grammar import Lineage
    from coupler.errors import Edit, Finding

_MODE = re.compile(r"0?[oO]?([0-7]{3,4})")


class UnfixableError(Exception):
    """A document that nothing can be mended in, since it cannot be read; the text says why."""


@dataclass(frozen=True)
class Fixed:
    """A mended document, the findings that are mended in it, and those that are left."""

    text: str
    mended: tuple[Finding, ...]
    left: tuple[Finding, ...]


def fix(text: str, file: str, lineage: Lineage) -> Fixed:
    """Return a cloud-config with every finding mended that brings its own edits; mended again, it stays as it is.

    Raises:
        UnfixableError: it is no cloud-config, or no YAML.
    """
    if format_of(text, lineage) is not Format.CLOUD_CONFIG:
        raise UnfixableError("it is no #cloud-config in plain text: compressed, a script, or something else")
    try:
        parse(text, lineage)
    except YamlError as error:
        raise UnfixableError(f"it is no YAML that coreos-cloudinit can read: {error}") from error
    mended: list[Finding] = []
    found = findings(text, file, lineage)
    while step := _step(text, found, [finding for finding in found if finding.fix], file, lineage):
        text, found = step.text, list(step.left)
        mended += step.mended
    return Fixed(text, tuple(mended), tuple(found))


def _step(text: str, found: list[Finding], fixable: list[Finding], file: str, lineage: Lineage) -> Fixed | None:
    """Return the text with all of `fixable` mended; where they do harm together, with half of them or fewer."""
    better = edited(text, [edit for finding in fixable for edit in finding.fix])
    if better == text:
        return None
    left = findings(better, file, lineage)
    if _is_better(text, better, found, left, lineage):
        return Fixed(better, tuple(fixable), tuple(left))
    half = len(fixable) // 2
    parts = (fixable[:half], fixable[half:]) if half else ()
    return next(filter(None, (_step(text, found, part, file, lineage) for part in parts)), None)


def edited(text: str, edits: Iterable[Edit]) -> str:
    """Return a text with edits carried out; of two that overlap, the earlier place wins."""
    pieces = []
    end = 0
    for edit in sorted(set(edits), key=lambda edit: (edit.start, edit.end)):
        if edit.start >= end:
            pieces += [text[end : edit.start], edit.text]
            end = edit.end
    return "".join([*pieces, text[end:]])


def _is_better(text: str, better: str, found: list[Finding], left: list[Finding], lineage: Lineage) -> bool:
    """Return whether a changed text says the same, with fewer findings and none of a new kind."""
    before, after = (Counter(finding.code for finding in each) for each in (found, left))
    if after - before or after == before:
        return False
    try:
        return _alike(parse(text, lineage).root, parse(better, lineage).root)
    except YamlError:
        return False


def _alike(old: Node | None, new: Node | None) -> bool:
    """Return whether two trees differ in nothing but spellings."""
    pairs = [(old, new)]
    while pairs:
        one, other = pairs.pop()
        if one is None or other is None:
            if one is not other:
                return False
            continue
        if one.kind is not other.kind or len(one.children) != len(other.children):
            return False
        if one.kind is NodeKind.SCALAR and _meaning(one.value) != _meaning(other.value):
            return False
        pairs += zip(one.children, other.children, strict=True)
    return True


def _meaning(text: str) -> str:
    """Return a text without what a fix may change: hyphens, line ends, the spelling of modes, booleans, drop-ins."""
    if match := _MODE.fullmatch(text):
        return match[1].rjust(4, "0")
    word = is_yes_or_no(text)
    if word is not None:
        return str(word)
    plain = text.replace("\r", "").removesuffix("\n").removesuffix(".conf").replace("-", "_")
    return plain.capitalize() if plain.lower() in ("true", "false") else plain
