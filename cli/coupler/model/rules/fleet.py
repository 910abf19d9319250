"""Rules about the units that fleet schedules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coupler.model.fleet import UnitState, is_template, template_of, unknown_option
from coupler.model.rules.issue import Issue, error, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coupler.model.cluster import Cluster
    from coupler.model.fleet import Scheduled
    from coupler.model.source import KeyPath

_APART = (
    ("MachineID", ("MachineOf", "Conflicts", "Global", "Replaces")),
    ("Global", ("MachineOf", "Replaces")),
    ("Conflicts", ("Replaces",)),
)
"""Options of which fleet takes only one (ValidateOptions)."""


def units(cluster: Cluster) -> Iterator[Issue]:
    """A unit has a text, fleet takes its options, and a template is only known."""
    for name, unit in cluster.fleet.units.items():
        path: KeyPath = ("fleet", "units", name)
        if unit.content is not None and unit.file:
            yield error("fleet-unit-text", (*path, "file"), "the unit has content and a file", "keep one of the two")
        if unit.own_text is None and template_of(name) not in cluster.fleet.units:
            template = template_of(name)
            hint = f"add `content:` or `file:`{f', or the template {template}' if template else ''}"
            yield error("fleet-unit-text", path, "the unit has no text", hint)
        if is_template(name) and unit.state not in {None, UnitState.INACTIVE}:
            message = "a template is never on a machine itself; its instances are"
            yield error("fleet-template", (*path, "state"), message, f"add a unit `{name.replace('@.', '@1.')}`")
    if cluster.fleet.units and not cluster.fleet.enabled:
        message = "nodes run no fleet, so nobody schedules these units"
        yield warning("fleet-units-unused", ("fleet", "units"), message, "remove them, or set fleet.enabled to true")


def options(cluster: Cluster) -> Iterator[Issue]:
    """fleet knows the options of [X-Fleet], and takes them together."""
    for unit in cluster.fleet.scheduled:
        if not cluster.fleet.units[unit.name].own_text:
            continue  # the template is judged once
        path = _text_path(cluster, unit)
        for name in dict.fromkeys(name for name, _ in unit.options):
            hint = unknown_option(name)
            if hint:
                yield error(
                    "fleet-option", path, f"fleet ignores `{name}` in the section [X-Fleet] of {unit.name}", hint
                )
        for one, others in _APART:
            for other in others:
                if _has(unit, one) and _has(unit, other):
                    message = f"fleet refuses {unit.name}: {one} cannot be used with {other}"
                    yield error("fleet-options-together", path, message, "remove one of the two")


def metadata(cluster: Cluster) -> Iterator[Issue]:
    """Some node is as a unit wants its machine to be."""
    nodes = [{**cluster.fleet.metadata, **node.labels} for node in cluster.nodes]
    for unit in cluster.fleet.scheduled:
        path = _text_path(cluster, unit)
        bad = [pair for pair in unit.values("MachineMetadata") if not all(pair.partition("=")) or pair.count("=") > 1]
        if bad:
            message = f"fleet ignores MachineMetadata={bad[0]} of {unit.name}: it is not KEY=VALUE"
            yield error("fleet-metadata", path, message, "write `MachineMetadata=region=eu`")
        elif not any(all(node.get(key) in values for key, values in unit.metadata.items()) for node in nodes):
            wanted = " and ".join(f"{key}={' or '.join(sorted(values))}" for key, values in unit.metadata.items())
            message = f"no node has {wanted}, so {unit.name} runs nowhere"
            yield warning("fleet-metadata", path, message, "give a node the label, or set fleet.metadata")


def peers(cluster: Cluster) -> Iterator[Issue]:
    """A unit stands beside another one that there is."""
    for unit in cluster.fleet.scheduled:
        for peer in unit.values("MachineOf"):
            if peer not in cluster.fleet.units and "%" not in peer:
                message = f"{unit.name} runs where {peer} runs, and fleet.units has no {peer}"
                hint = "correct MachineOf; a unit that you submit by hand is fine"
                yield warning("fleet-peer", _text_path(cluster, unit), message, hint)


def _has(unit: Scheduled, option: str) -> bool:
    return unit.is_global if option == "Global" else bool(unit.values(option))


def _text_path(cluster: Cluster, unit: Scheduled) -> KeyPath:
    written = cluster.fleet.units[unit.name]
    key = "content" if written.content is not None else "file"
    return ("fleet", "units", unit.name, key)


RULES = (units, options, metadata, peers)
