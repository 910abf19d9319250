"""Rules about more than one key at a time. Each is a small function that yields what it finds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coupler.model.rules import addons, fleet, kubernetes, machines, pods, programs, trust, updates

if TYPE_CHECKING:
    from coupler.model.cluster import Cluster
    from coupler.model.rules.issue import Issue

RULES = (
    *(*machines.RULES, *pods.RULES, *programs.RULES, *fleet.RULES),
    *(*kubernetes.RULES, *addons.RULES, *updates.RULES, *trust.RULES),
)


def issues_of(cluster: Cluster) -> list[Issue]:
    """Return everything that the rules find about a cluster."""
    return [issue for rule in RULES for issue in rule(cluster)]
