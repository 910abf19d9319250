"""The units of a document under examination, as the rules about them see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coupler.cloudinit.parse import NodeKind
from coupler.cloudinit.unitfile import settings_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coupler.cloudinit.parse import Node
    from coupler.cloudinit.subject import Subject
    from coupler.cloudinit.unitfile import Setting

STARTING = frozenset(("start", "restart", "reload-or-restart"))
"""The commands that start a unit which does not run."""


def units(subject: Subject) -> Iterator[tuple[str, Node]]:
    """Yield (name, mapping) of every unit that has a name."""
    for unit in subject.outline.items("coreos", "units"):
        if name := subject.value(unit, "name"):
            yield name, unit


def texts(subject: Subject, unit: Node) -> list[Node]:
    """Return the scalars that hold a unit's content and its drop-ins; one without a name is written nowhere."""
    drop_ins = map(subject.outline.follow, subject.outline.at(unit, "drop_ins").children)
    named = (drop_in for drop_in in drop_ins if subject.value(drop_in, "name"))
    nodes = [subject.outline.at(holder, "content") for holder in (unit, *named)]
    return [node for node in nodes if node.kind is NodeKind.SCALAR and node.value]


def all_settings(subject: Subject, unit: Node) -> list[Setting]:
    """Return the settings of a unit's content and of its drop-ins."""
    return [setting for node in texts(subject, unit) for setting in settings_of(node.value)]
